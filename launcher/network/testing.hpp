// SPDX-License-Identifier: Apache-2.0
// For tests: sockets on loopback, and an agent in a guest that does as it is told.
#pragma once

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/socket_address.hpp"
#include "protocol/msb_exec.h"
#include "protocol/opener.hpp"
#include "protocol/testing/wire.hpp"

namespace msb::launcher::testing {

// One end of a connection, or a datagram socket, as a test uses it: never waits.
struct Peer {
  Peer() = default;
  explicit Peer(Fd its_socket) : socket(std::move(its_socket)) {}

  void say(std::string_view text) const {
    REQUIRE(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
            static_cast<ssize_t>(text.size()));
  }
  // Writes as much of `text` as there is room for.
  std::size_t say_some(std::string_view text) const {
    const ssize_t size =
        ::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return size > 0 ? static_cast<std::size_t>(size) : 0;
  }
  void end() const { ::shutdown(socket.get(), SHUT_WR); }
  // All that has come.
  const std::string& hear() {
    char buffer[64 * 1024];
    ssize_t size = 0;
    while (socket && !ended && code == 0 &&
           (size = ::recv(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT)) != -1) {
      heard.append(buffer, static_cast<std::size_t>(size));
      ended = size == 0;
    }
    if (size == -1 && errno != EAGAIN) {
      code = errno;
    }
    return heard;
  }
  // One datagram.
  [[nodiscard]] std::optional<std::string> next() const {
    std::string buffer(65536, '\0');
    const ssize_t size = ::recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (size < 0) {
      return std::nullopt;
    }
    buffer.resize(static_cast<std::size_t>(size));
    return buffer;
  }
  bool has_ended() {
    hear();
    return ended;
  }
  bool was_reset() {
    hear();
    return code == ECONNRESET;
  }

  Fd socket;
  std::string heard;
  bool ended = false;
  int code = 0;  // errno of what is broken
};

inline SocketAddress loopback(std::uint16_t port = 0) {
  return *parse_address("127.0.0.1", port);
}

// A bound socket of `type`, with SOCK_NONBLOCK or without; one of TCP listens.
inline Fd bind_socket(int type, const SocketAddress& address = loopback()) {
  Fd socket(::socket(address.family(), type | SOCK_CLOEXEC, 0));
  REQUIRE(socket);
  REQUIRE(::bind(socket.get(), address.get(), address.size()) == 0);
  if ((type & ~SOCK_NONBLOCK) == SOCK_STREAM) {
    REQUIRE(::listen(socket.get(), 16) == 0);
  }
  return socket;
}

inline Peer connect_socket(int type, const SocketAddress& address) {
  Fd socket(::socket(address.family(), type | SOCK_CLOEXEC, 0));
  REQUIRE(socket);
  REQUIRE(::connect(socket.get(), address.get(), address.size()) == 0);
  return Peer(std::move(socket));
}

// The end that is given away, and the test's.
inline std::pair<Fd, Peer> tcp_pair() {
  const Fd listener = bind_socket(SOCK_STREAM);
  Peer client = connect_socket(SOCK_STREAM, bound_address(listener.get()));
  Fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(accepted);
  return {std::move(accepted), std::move(client)};
}

inline std::pair<Fd, Peer> unix_pair() {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  return {Fd(ends[0]), Peer(Fd(ends[1]))};
}

// As Wire::run_until(), with a condition that may take what it has seen: it is not asked again.
inline bool run_until(const protocol::testing::Wire& wire, const std::function<bool()>& condition) {
  bool holds = false;
  return wire.run_until([&] { return holds = holds || condition(); });
}

inline std::string framed(std::string_view datagram) {
  std::string text;
  text += static_cast<char>(datagram.size() & 0xff);
  text += static_cast<char>(datagram.size() >> 8);
  return text += datagram;
}

// Gives connections to itself.
struct FakeAgent {
  protocol::Opener opener() {
    return [this]() -> Result<Fd> {
      ++opened;
      if (gone) {
        return fail("the machine is gone");
      }
      auto [given, kept] = unix_pair();
      connections.push_back(std::move(kept));
      return std::move(given);
    };
  }
  // What CONNECT asked of a connection, once it has come; then it is taken from what was heard.
  static std::optional<msb_connect> asked(Peer& connection) {
    constexpr std::size_t kSize = sizeof(msb_frame_header) + sizeof(msb_connect);
    if (connection.hear().size() < kSize) {
      return std::nullopt;
    }
    msb_frame_header header{};
    msb_connect fields{};
    std::memcpy(&header, connection.heard.data(), sizeof header);
    std::memcpy(&fields, connection.heard.data() + sizeof header, sizeof fields);
    CHECK(header.type == MSB_CONNECT);
    connection.heard.erase(0, kSize);
    return fields;
  }
  static void accept(const Peer& connection) {
    connection.say("OK 1\n" + protocol::testing::frame_of(MSB_DONE, msb_done{0}));
  }
  static void refuse(Peer& connection) {
    connection.say("OK 1\n" + protocol::testing::frame_of(
                                  MSB_REFUSED, msb_failure{MSB_STAGE_REQUEST, ECONNREFUSED},
                                  "nobody listens"));
    connection.socket.reset();
  }

  bool gone = false;
  std::size_t opened = 0;
  std::list<Peer> connections;
};

}  // namespace msb::launcher::testing
