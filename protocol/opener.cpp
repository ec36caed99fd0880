// SPDX-License-Identifier: Apache-2.0
#include "protocol/opener.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

namespace msb::protocol {

namespace {

constexpr std::string_view kConnect = "CONNECT ";
constexpr std::string_view kOk = "OK ";
constexpr std::uint32_t kAnyPort = 0xffff'ffff;  // VMADDR_PORT_ANY, which is no port

std::optional<std::uint32_t> parse_number(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return number;
}

std::unexpected<Error> cannot_connect(const std::string& path, int code) {
  switch (code) {
    case ECONNREFUSED:
      return std::unexpected(
          Error{fmt::format("nobody listens at \"{}\": the sandbox has ended", path), code});
    case EPROTOTYPE:
      return std::unexpected(Error{fmt::format("\"{}\" is not a microsandbox socket", path), code});
    case EAGAIN:
      return std::unexpected(
          Error{fmt::format("too many wait for the sandbox at \"{}\" already", path), code});
    default:
      return fail_errno(code, "cannot connect to the sandbox at \"{}\"", path);
  }
}

}  // namespace

Result<Fd> connect_sandbox(const std::string& path, std::uint32_t guest_port) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return std::unexpected(Error{fmt::format("there is no sandbox at \"{}\"", path), errno});
    }
    return cannot_connect(path, errno);
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (!S_ISSOCK(status.st_mode)) {
    return std::unexpected(Error{fmt::format("\"{}\" is not a socket", path), ENOTSOCK});
  }
  if (path.size() >= sizeof address.sun_path) {
    return cannot_connect(path, ENAMETOOLONG);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  // Not blocking, for connect(2) would wait for a place in a full queue.
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) {
    return fail_errno(errno, "cannot create a socket");
  }
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return cannot_connect(path, errno);
  }
  // Into an empty buffer, which takes it whole.
  const std::string line = connect_line(guest_port);
  if (::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(line.size())) {
    return std::unexpected(ended_before_greeting());
  }
  if (::fcntl(socket.get(), F_SETFL, 0) != 0) {
    return fail_errno(errno, "cannot set a socket's mode");
  }
  return socket;
}

Opener open_sandbox(std::string path, std::uint32_t guest_port) {
  return [path = std::move(path), guest_port] { return connect_sandbox(path, guest_port); };
}

bool is_greeting(std::string_view line) {
  return line.starts_with(kOk) && parse_number(line.substr(kOk.size()));
}

Error not_a_sandbox() {
  return {"what listens there is not a microsandbox socket: it answered with something else",
          EPROTO};
}

Error ended_before_greeting() {
  return {
      "the sandbox closed the connection without an answer: it has ended, or its guest does "
      "not listen on this port",
      ECONNRESET};
}

std::string connect_line(std::uint32_t guest_port) {
  return fmt::format("{}{}\n", kConnect, guest_port);
}

Result<std::uint32_t> parse_connect(std::string_view line) {
  if (!line.starts_with(kConnect)) {
    return fail("a connection must begin with \"CONNECT <port>\"");
  }
  const auto port = parse_number(line.substr(kConnect.size()));
  if (!port || *port == kAnyPort) {
    return fail("a connection asked for what is no port");
  }
  return *port;
}

}  // namespace msb::protocol
