// SPDX-License-Identifier: Apache-2.0
#include "launcher/socket_connections.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <string>
#include <utility>
#include <vector>

#include "protocol/testing/wire.hpp"

namespace msb::launcher {
namespace {

struct ConnectionsFixture {
  ~ConnectionsFixture() {
    connections->close();
    wire.loop->drain();
  }
  void make(SocketConnections::Changed changed) {
    connections.emplace(
        *wire.loop,
        SocketConnections::Ways{
            .supervisor = [this](Fd socket) { supervisor.push_back(std::move(socket)); },
            .guest = [this](Fd socket, std::uint32_t port) -> Result<void> {
              if (port == 9) {
                return fail("the machine does not read");
              }
              guest.push_back(std::move(socket));
              return {};
            }},
        std::move(changed));
  }
  Fd connect(std::uint32_t port) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    connected = connections->connect(Fd(ends[1]), port).has_value();
    return Fd(ends[0]);
  }

  protocol::testing::Wire wire;
  std::vector<Fd> supervisor, guest;
  bool connected = false;
  std::optional<SocketConnections> connections;
};

void say(const Fd& socket, std::string_view text) {
  REQUIRE(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(text.size()));
}

std::string hear(const Fd& socket) {
  char buffer[64];
  const ssize_t size = ::recv(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
  return size > 0 ? std::string(buffer, static_cast<std::size_t>(size)) : size == 0 ? "end" : "";
}

TEST_CASE_FIXTURE(ConnectionsFixture, "port 0 is the supervisor, another one the guest") {
  make(nullptr);
  const Fd one = connect(0);
  CHECK(supervisor.size() == 1);
  const Fd two = connect(1025);
  REQUIRE(guest.size() == 1);
  say(guest.front(), "OK 1\n");
  CHECK(hear(two) == "OK 1\n");
}

TEST_CASE_FIXTURE(ConnectionsFixture,
                  "those that are counted carry the same, and their ends are told") {
  std::size_t count = 0;
  make([&](std::size_t now) { count = now; });
  const Fd attached = connect(0);
  CHECK(count == 0);
  Fd client = connect(1025);
  const Fd other = connect(1025);
  REQUIRE(guest.size() == 2);
  CHECK(count == 2);
  say(guest[0], "OK 1\n");
  std::string heard;
  REQUIRE(wire.run_until([&] { return (heard += hear(client)) == "OK 1\n"; }));
  say(client, "frames");
  heard.clear();
  REQUIRE(wire.run_until([&] { return (heard += hear(guest[0])) == "frames"; }));
  client.reset();
  REQUIRE(wire.run_until([&] { return count == 1; }));
  guest[1].reset();  // the guest refused
  REQUIRE(wire.run_until([&] { return count == 0 && hear(other) == "end"; }));
}

TEST_CASE_FIXTURE(ConnectionsFixture, "what cannot be connected is closed, and not counted") {
  std::size_t count = 7;
  make([&](std::size_t now) { count = now; });
  const Fd client = connect(9);
  CHECK_FALSE(connected);
  CHECK(hear(client) == "end");
  CHECK(count == 7);
}

}  // namespace
}  // namespace msb::launcher
