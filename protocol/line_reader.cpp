// SPDX-License-Identifier: Apache-2.0
#include "protocol/line_reader.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace msb::protocol {

LineReader::LineReader(AsyncIo& io, int socket, std::size_t limit,
                       std::function<void(Result<std::string>)> done)
    : io_(io),
      socket_(socket),
      limit_(limit),
      done_(std::move(done)),
      readable_([this](std::int32_t result) { on_readable(result); }) {}

void LineReader::start() {
  io_.poll(socket_, POLLIN, readable_);
}

void LineReader::on_readable(std::int32_t result) {
  if (result == -ECANCELED) {
    done_(std::unexpected(Error{"a connection was given up", ECANCELED}));
    return;
  }
  if (auto line = take()) {
    done_(std::move(*line));
  } else {
    start();
  }
}

// Looks before it takes, because what follows the line is not its own.
std::optional<Result<std::string>> LineReader::take() {
  std::string seen(limit_ + 1 - line_.size(), '\0');
  const ssize_t size = ::recv(socket_, seen.data(), seen.size(), MSG_PEEK | MSG_DONTWAIT);
  if (size < 0) {
    if (errno == EAGAIN || errno == EINTR) {
      return std::nullopt;
    }
    return fail_errno(errno, "a connection broke before its first line was complete");
  }
  if (size == 0) {
    return std::unexpected(
        Error{"a connection was closed before its first line was complete", ECONNRESET});
  }
  const std::size_t end = seen.substr(0, static_cast<std::size_t>(size)).find('\n');
  const bool complete = end != std::string::npos;
  seen.resize(complete ? end + 1 : static_cast<std::size_t>(size));
  // The same bytes again: nobody else reads from this socket.
  if (::recv(socket_, seen.data(), seen.size(), MSG_DONTWAIT) !=
      static_cast<ssize_t>(seen.size())) {
    return fail_errno(errno, "a connection broke before its first line was complete");
  }
  line_ += seen;
  if (complete) {
    line_.pop_back();
    return std::move(line_);
  }
  if (line_.size() > limit_) {
    return std::unexpected(
        Error{fmt::format("a connection's first line is longer than {} bytes", limit_), EMSGSIZE});
  }
  return std::nullopt;
}

}  // namespace msb::protocol
