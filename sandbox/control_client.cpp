// SPDX-License-Identifier: Apache-2.0
#include "sandbox/control_client.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "sandbox/files.hpp"

namespace msb::sandbox {

namespace {

using Clock = std::chrono::steady_clock;

// An answer of a supervisor is far smaller.
constexpr std::size_t kMaxLine = 4 * 1024 * 1024;

int milliseconds_until(std::optional<Clock::time_point> deadline) {
  if (!deadline) {
    return -1;
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1'000'000'000));
}

// Whether it became ready before the deadline.
bool wait_readable(int fd, std::optional<Clock::time_point> deadline) {
  pollfd entry{fd, POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&entry, 1, milliseconds_until(deadline))) < 0 && errno == EINTR) {
  }
  return ready > 0;
}

}  // namespace

Result<ControlClient> ControlClient::connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail("the path '{}' is too long for a socket", path);
  }
  std::ranges::copy(path, address.sun_path);
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket ||
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "cannot reach the sandbox's supervisor at '{}'", path);
  }
  return ControlClient(std::move(socket));
}

Result<std::optional<std::string>> ControlClient::read_line(
    std::optional<Clock::time_point> deadline) {
  while (true) {
    if (const std::size_t end = received_.find('\n'); end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      return line;
    }
    if (received_.size() > kMaxLine) {
      return fail("the sandbox's supervisor sent a line of more than {} bytes", kMaxLine);
    }
    if (!wait_readable(socket_.get(), deadline)) {
      return std::unexpected(Error{"the sandbox's supervisor does not answer", ETIMEDOUT});
    }
    char piece[16384];
    const ssize_t length = ::recv(socket_.get(), piece, sizeof piece, 0);
    if (length == 0 || (length < 0 && errno == ECONNRESET)) {
      return std::nullopt;
    }
    if (length < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot read from the sandbox's supervisor");
    }
    received_.append(piece, length < 0 ? 0 : static_cast<std::size_t>(length));
  }
}

Result<ControlClient::Json> ControlClient::call(const std::string& method, const Json& parameters,
                                                std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  const std::int64_t id = ++last_id_;
  const Json request = {{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", parameters}};
  const std::string line = request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (::send(socket_.get(), line.data(), line.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(line.size())) {
    return fail_errno(errno, "cannot ask the sandbox's supervisor to {}", method);
  }
  while (true) {
    const auto answer = read_line(deadline);
    if (!answer) {
      return std::unexpected(answer.error());
    }
    if (!*answer) {
      return fail("the sandbox ended before it answered to {}", method);
    }
    Json document = Json::parse(**answer, nullptr, false);
    if (!document.is_object() || !document.contains("id")) {
      continue;  // an event
    }
    if (const auto error = document.find("error"); error != document.end()) {
      return fail("{}", text_member(*error, "message").value_or(method));
    }
    if (document["id"] == id) {
      return std::move(document["result"]);
    }
  }
}

Result<std::optional<ControlClient::Json>> ControlClient::next_event(
    std::optional<std::chrono::milliseconds> patience) {
  const std::optional<Clock::time_point> deadline =
      patience ? std::optional(Clock::now() + *patience) : std::nullopt;
  while (true) {
    const auto line = read_line(deadline);
    if (!line) {
      return std::unexpected(line.error());
    }
    if (!*line) {
      return std::nullopt;
    }
    Json document = Json::parse(**line, nullptr, false);
    if (document.is_object() && document.contains("params") && document["params"].is_object()) {
      return std::move(document["params"]);
    }
  }
}

Result<Fd> ControlClient::supervisor() const {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    return fail_errno(errno, "cannot tell who the sandbox's supervisor is");
  }
  Fd process(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
  if (!process) {
    return fail_errno(errno, "cannot watch the sandbox's supervisor, process {}", peer.pid);
  }
  return process;
}

bool wait_for_end(const Fd& process, std::chrono::milliseconds patience) {
  return wait_readable(process.get(), Clock::now() + patience);
}

}  // namespace msb::sandbox
