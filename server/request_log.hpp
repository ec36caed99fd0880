// SPDX-License-Identifier: Apache-2.0
// The server's log: a line of JSON for each request and for each thing that happens.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"

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

// The log of a server in the background, $MSB_HOME/server/log, for appending. One that has grown
// beyond 16 MiB is begun anew, and the one before kept as log.1.
Result<Fd> open_server_log(const std::string& home);

// Whoever cannot write it goes on without. Lines that come together are written together, when the
// io_context comes to it, or by flush().
class RequestLog {
 public:
  // `fd` is borrowed. Where it is the file that open_server_log(home) gives, that is begun anew
  // when it has grown.
  RequestLog(boost::asio::io_context& io, int fd, std::string home = {});
  RequestLog(const RequestLog&) = delete;
  RequestLog& operator=(const RequestLog&) = delete;

  void write(const LoggedRequest& request);
  // `level`: info, warning or error.
  void write(std::string_view level, std::string_view message, std::string_view request_id = "");
  void flush();

 private:
  void add(const std::string& line);
  void begin_anew();

  boost::asio::io_context& io_;
  const int fd_;
  const std::string home_;
  std::uint64_t size_ = 0;  // of the file, as far as it is known
  std::string lines_;
};

}  // namespace msb::server
