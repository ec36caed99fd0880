// SPDX-License-Identifier: Apache-2.0
// How often and after what delay something is tried again.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>

#include "base/result.hpp"
#include "oci/registry/attempt.hpp"

namespace msb::oci {

struct RetryPolicy {
  std::chrono::milliseconds first_delay{};
  std::function<void(const std::string& sentence)> notice;  // may be empty
  std::stop_token stop;
};

// The tries of one request or transfer.
class Retries {
 public:
  explicit Retries(const RetryPolicy& policy) : policy_(policy) {}

  // After a failed try: waits until it is time for the next, and says so. Gives the error that ends
  // it all when the failure is final (or kNoTls), was one too many in a row (6; 3 without any
  // connection; 200 in all), the server wants to be left alone for more than a minute, or a stop
  // was requested.
  Result<void> wait_after(const Failure& failure);

  // After what is worth a fresh start: the count of tries in a row begins anew.
  void made_progress() { failures_ = 0; }

 private:
  const RetryPolicy& policy_;
  unsigned failures_ = 0;  // in a row
  unsigned total_ = 0;
};

}  // namespace msb::oci
