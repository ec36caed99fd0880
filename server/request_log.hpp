// SPDX-License-Identifier: Apache-2.0
// The server's log: a line of JSON for each request and for each thing that happens.
#pragma once

#include <boost/asio/io_context.hpp>
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

// Whoever cannot write it goes on without. Lines that come together are written together, when the
// io_context comes to it, or by flush().
class RequestLog {
 public:
  // `fd` is borrowed.
  RequestLog(boost::asio::io_context& io, int fd) : io_(io), fd_(fd) {}
  RequestLog(const RequestLog&) = delete;
  RequestLog& operator=(const RequestLog&) = delete;

  void write(const LoggedRequest& request);
  // `level`: info, warning or error.
  void write(std::string_view level, std::string_view message, std::string_view request_id = "");
  void flush();

 private:
  void add(const std::string& line);

  boost::asio::io_context& io_;
  int fd_;
  std::string lines_;
};

}  // namespace msb::server
