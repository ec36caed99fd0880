// SPDX-License-Identifier: Apache-2.0
// Reads one line from a stream socket, and not one byte more.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>

#include "base/async_io.hpp"
#include "base/result.hpp"

namespace msb::protocol {

// The owner keeps it and the socket until pending() is false, and while `done` runs.
class LineReader {
 public:
  // `done` runs once and gets the line without its newline; an error when the other side closed
  // before it (code ECONNRESET), the line is longer than `limit` bytes (EMSGSIZE), the socket
  // broke, or the reading was cancelled (ECANCELED).
  LineReader(AsyncIo& io, int socket, std::size_t limit,
             std::function<void(Result<std::string>)> done);
  void start();
  void cancel() { io_.cancel(readable_); }
  [[nodiscard]] bool pending() const { return readable_.pending(); }

 private:
  void on_readable(std::int32_t result);
  std::optional<Result<std::string>> take();

  AsyncIo& io_;
  const int socket_;
  const std::size_t limit_;
  std::function<void(Result<std::string>)> done_;
  std::string line_;
  Operation readable_;
};

}  // namespace msb::protocol
