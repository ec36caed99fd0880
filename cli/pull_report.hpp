// SPDX-License-Identifier: Apache-2.0
// The progress of a pull for a program that waits for it: lines of JSON,
// {"received": bytes, "total": bytes, "text": what happens}, and {"error": sentence} at a bad end.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "oci/store/progress.hpp"

namespace msb::cli {

class PullReport final : public oci::Progress {
 public:
  // `fd`: a pipe, which is borrowed.
  explicit PullReport(int fd) : fd_(fd) {}

  void begin(const std::vector<oci::Layer>& layers) override;
  void update(std::size_t index, oci::LayerState state, std::uint64_t received) override;
  static void fail(int fd, const std::string& sentence);

 private:
  using Clock = std::chrono::steady_clock;
  void tell(const std::string& text);

  int fd_;
  std::mutex mutex_;
  std::vector<std::uint64_t> received_;  // of each layer
  std::vector<bool> over_;
  std::uint64_t total_ = 0;
  Clock::time_point told_;
};

}  // namespace msb::cli
