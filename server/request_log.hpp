// SPDX-License-Identifier: Apache-2.0
// The server's log: a line of JSON for each request and for each thing that happens.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace msb::server {

struct LoggedRequest {
  std::string id;
  std::string remote;
  std::string key;  // its id; empty: none
  std::string method;
  std::string path;
  unsigned status = 0;         // 0: the client left before there was one
  std::uint64_t received = 0;  // bytes of the body
  std::uint64_t sent = 0;      // bytes of the answer's
  std::chrono::duration<double, std::milli> took{};
};

// Whoever cannot write it goes on without.
class RequestLog {
 public:
  // `fd` is borrowed; negative: nothing is written.
  explicit RequestLog(int fd) : fd_(fd) {}
  void write(const LoggedRequest& request) const;
  // `level`: info, warning or error.
  void write(std::string_view level, std::string_view message,
             std::string_view request_id = "") const;

 private:
  int fd_;
};

}  // namespace msb::server
