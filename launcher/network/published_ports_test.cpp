// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/published_ports.hpp"

#include <doctest/doctest.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include <memory>
#include <string>
#include <vector>

#include "launcher/network/testing.hpp"

namespace msb::launcher {
namespace {

using testing::bind_socket;
using testing::connect_socket;
using testing::FakeAgent;
using testing::Peer;

struct Fixture {
  ~Fixture() {
    if (ports) {
      ports->close();
    }
    wire.loop->drain();
  }
  Result<void> create(const std::vector<std::string>& words) {
    const auto parsed = parse_publish(std::span<const std::string>(words));
    REQUIRE(parsed);
    auto created = PublishedPorts::create(*wire.loop, *parsed, agent.opener(), limits);
    if (!created) {
      return std::unexpected(created.error());
    }
    ports = std::move(*created);
    return {};
  }
  [[nodiscard]] SocketAddress host(std::size_t index = 0) const {
    return *parse_address(ports->list().at(index).address, ports->list().at(index).host_port);
  }
  [[nodiscard]] Peer client(std::size_t index = 0) const {
    return connect_socket(SOCK_STREAM, host(index));
  }
  // The agent's newest connection, which asks for `guest_port`.
  Peer& asked(std::uint16_t guest_port, std::size_t count = 1) {
    std::optional<msb_connect> fields;
    REQUIRE(run_until([&] {
      return agent.connections.size() == count &&
             (fields = FakeAgent::asked(agent.connections.back()));
    }));
    CHECK(fields->kind == MSB_CONNECT_TCP);
    CHECK(fields->port == guest_port);
    return agent.connections.back();
  }
  bool run_until(const std::function<bool()>& condition) const {
    return testing::run_until(wire, condition);
  }

  protocol::testing::Wire wire;
  FakeAgent agent;
  PublishedPorts::Limits limits;
  std::unique_ptr<PublishedPorts> ports;
};

TEST_CASE_FIXTURE(Fixture, "what is bound is listed with its real port") {
  REQUIRE(create({"0:80", "0.0.0.0:0:443", "0:53/udp"}));
  REQUIRE(ports->list().size() == 3);
  CHECK(ports->list()[0].address == "127.0.0.1");
  CHECK(ports->list()[0].host_port != 0);
  CHECK(ports->list()[0].guest_port == 80);
  CHECK(ports->list()[1].address == "0.0.0.0");
  CHECK(ports->list()[1].guest_port == 443);
  CHECK(ports->list()[2].transport == Transport::kUdp);
  CHECK(ports->list()[2].host_port != 0);
}

TEST_CASE_FIXTURE(Fixture, "who watches is told how many connections there are, and of datagrams") {
  REQUIRE(create({"0:80", "0:53/udp"}));
  std::size_t count = 0;
  int datagrams = 0;
  ports->watch(
      {.connections = [&](std::size_t now) { count = now; }, .datagram = [&] { ++datagrams; }});
  ports->open();
  {
    const Peer client = this->client();
    FakeAgent::accept(asked(80));
    CHECK(run_until([&] { return count == 1; }));
    CHECK(datagrams == 0);
  }
  agent.connections.clear();
  CHECK(run_until([&] { return count == 0; }));
  const Peer sender = connect_socket(SOCK_DGRAM, host(1));
  sender.say("datagram");
  CHECK(run_until([&] { return datagrams == 1; }));
  CHECK(count == 0);
}

TEST_CASE_FIXTURE(Fixture, "a port that is in use is named, and nothing stays bound") {
  for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
    const Fd taken = bind_socket(type);
    const Fd probe = bind_socket(type);
    const std::uint16_t port = bound_address(taken.get()).port();
    const std::string suffix = type == SOCK_STREAM ? "" : "/udp";
    const auto failed = create({"0:1" + suffix, fmt::format("{}:80{}", port, suffix)});
    REQUIRE_FALSE(failed);
    CHECK(failed.error().message ==
          fmt::format("port {} of 127.0.0.1 is in use; publish another one, or 0 for any that is "
                      "free",
                      port));
  }
}

TEST_CASE_FIXTURE(Fixture, "an address of another host is named") {
  const auto failed = create({"192.0.2.1:0:80"});
  REQUIRE_FALSE(failed);
  CHECK(failed.error().message.find("this host has no address 192.0.2.1 ") == 0);
}

TEST_CASE_FIXTURE(Fixture, "IPv4 and IPv6 have their ports beside each other") {
  const Fd six(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto any = *parse_address("::1", 0);
  if (!six || ::bind(six.get(), any.get(), any.size()) != 0) {
    MESSAGE("not run: this host has no IPv6");
    return;
  }
  REQUIRE(create({"[::]:0:80"}));
  const std::uint16_t port = ports->list()[0].host_port;
  ports->open();
  auto beside = PublishedPorts::create(
      *wire.loop, *parse_publish(std::vector{fmt::format("0.0.0.0:{}:80", port)}), agent.opener(),
      limits);
  REQUIRE(beside);
  const Peer client = connect_socket(SOCK_STREAM, *parse_address("::1", port));
  FakeAgent::accept(asked(80));
  client.say("hello");
  CHECK(run_until([&] { return agent.connections.back().hear() == "hello"; }));
  (*beside)->close();
  wire.loop->drain();
}

TEST_CASE_FIXTURE(
    Fixture, "a client that ends its half before the guest has answered is heard and answered") {
  REQUIRE(create({"0:80"}));
  ports->open();
  Peer client = this->client();
  client.say("question");
  client.end();
  Peer& guest = asked(80);
  FakeAgent::accept(guest);
  CHECK(run_until([&] { return guest.hear() == "question" && guest.has_ended(); }));
  guest.say("answer");
  guest.end();
  CHECK(run_until([&] { return client.has_ended(); }));
  CHECK(client.hear() == "answer");
}

TEST_CASE_FIXTURE(Fixture, "connections wait until the guest is ready, and are then its own") {
  REQUIRE(create({"0:80", "0:443"}));
  Peer client = this->client(1);
  client.say("early");
  int rounds = 0;
  CHECK(run_until([&] { return ++rounds > 20; }));
  CHECK(agent.opened == 0);
  ports->open();
  Peer& guest = asked(443);
  FakeAgent::accept(guest);
  CHECK(run_until([&] { return guest.hear() == "early"; }));
  guest.say("answer");
  guest.end();
  CHECK(run_until([&] { return client.has_ended(); }));
  CHECK(client.heard == "answer");
  client.say(", more");
  client.end();
  CHECK(run_until([&] { return guest.has_ended(); }));
  CHECK(guest.heard == "early, more");
}

TEST_CASE_FIXTURE(Fixture, "who is refused is reset, and the next one is served") {
  limits.times.give_up = {};
  REQUIRE(create({"0:80"}));
  ports->open();
  Peer refused = client();
  SUBCASE("by the guest") {
    FakeAgent::refuse(asked(80));
    CHECK(run_until([&] { return refused.was_reset(); }));
  }
  SUBCASE("because the tunnel broke") {
    asked(80).socket.reset();
    CHECK(run_until([&] { return refused.was_reset(); }));
  }
  SUBCASE("because the machine is gone") {
    agent.gone = true;
    CHECK(run_until([&] { return refused.was_reset(); }));
    agent.gone = false;
  }
  agent.connections.clear();
  Peer next = client();
  Peer& guest = asked(80);
  FakeAgent::accept(guest);
  guest.say("welcome");
  CHECK(run_until([&] { return next.hear() == "welcome"; }));
}

TEST_CASE_FIXTURE(Fixture, "clients wait while the machine has too much to do") {
  limits.connections = 2;
  REQUIRE(create({"0:80"}));
  ports->open();
  agent.gone = true;
  Peer one = client();
  Peer two = client();
  const Peer three = client();
  CHECK(run_until([&] { return agent.opened >= 6; }));
  CHECK_FALSE(one.was_reset());
  CHECK_FALSE(two.was_reset());
  // One that goes meanwhile leaves its place.
  reset_at_close(one.socket.get());
  one.socket.reset();
  int rounds = 0;
  CHECK(run_until([&] { return ++rounds > 20; }));
  agent.gone = false;
  CHECK(run_until([&] { return agent.connections.size() == 2; }));
  for (Peer& connection : agent.connections) {
    CHECK(run_until([&] { return FakeAgent::asked(connection).has_value(); }));
    FakeAgent::accept(connection);
    connection.say("welcome");
  }
  CHECK(run_until([&] { return two.hear() == "welcome"; }));
}

TEST_CASE_FIXTURE(Fixture, "a client that ends its half, and is then gone, frees its place") {
  limits.connections = 1;
  limits.times.look = std::chrono::milliseconds(20);
  REQUIRE(create({"0:80"}));
  ports->open();
  Peer gone = client();
  gone.end();
  Peer& guest = asked(80);
  int rounds = 0;
  CHECK(run_until([&] { return ++rounds > 20; }));
  CHECK_FALSE(guest.has_ended());
  reset_at_close(gone.socket.get());
  gone.socket.reset();
  CHECK(run_until([&] { return guest.has_ended(); }));
  const Peer next = client();
  asked(80, 2);
}

TEST_CASE_FIXTURE(Fixture, "a port that has no connection has a place kept for it") {
  limits.connections = 3;
  REQUIRE(create({"0:80", "0:81", "0:82/udp"}));
  ports->open();
  std::vector<Peer> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(client(0));
  }
  int rounds = 0;
  CHECK(run_until([&] { return ++rounds > 20; }));
  CHECK(agent.opened == 2);
  const Peer other = client(1);
  asked(81, 3);
  const Peer more = client(1);
  rounds = 0;
  CHECK(run_until([&] { return ++rounds > 20; }));
  CHECK(agent.opened == 3);
}

TEST_CASE_FIXTURE(Fixture, "a client whose host is gone is found out") {
  Fd accepted;
  Fd socket = bind_socket(SOCK_STREAM | SOCK_NONBLOCK);
  const SocketAddress address = bound_address(socket.get());
  TcpListener listener(*wire.loop, std::move(socket),
                       {.has_room = [] { return true; },
                        .accepted = [&](Fd client) { accepted = std::move(client); }});
  const auto option = [&](int level, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    REQUIRE(::getsockopt(accepted.get(), level, name, &value, &size) == 0);
    return value;
  };
  listener.open();
  const Peer client = connect_socket(SOCK_STREAM, address);
  CHECK(run_until([&] { return accepted.valid(); }));
  CHECK(option(SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(option(IPPROTO_TCP, TCP_KEEPIDLE) == 60);
  CHECK(option(IPPROTO_TCP, TCP_KEEPINTVL) == 10);
  CHECK(option(IPPROTO_TCP, TCP_KEEPCNT) == 6);
  listener.close();
  wire.loop->drain();
}

TEST_CASE_FIXTURE(Fixture, "a client that is gone before the guest answers frees its place") {
  limits.connections = 1;
  REQUIRE(create({"0:80"}));
  ports->open();
  Peer gone = client();
  Peer& guest = asked(80);
  reset_at_close(gone.socket.get());
  gone.socket.reset();
  CHECK(run_until([&] { return guest.has_ended(); }));
  const Peer next = client();
  asked(80, 2);
}

TEST_CASE_FIXTURE(Fixture, "those beyond the limit wait for a place") {
  limits.connections = 2;
  REQUIRE(create({"0:80"}));
  ports->open();
  std::vector<Peer> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(client());
    clients.back().say(std::to_string(i));
  }
  int rounds = 0;
  CHECK(run_until([&] { return ++rounds > 20; }));
  REQUIRE(agent.opened == 2);
  for (Peer& connection : agent.connections) {
    FakeAgent::accept(connection);
  }
  clients[0].socket.reset();
  agent.connections.front().socket.reset();
  CHECK(run_until([&] { return agent.opened == 3; }));
  FakeAgent::refuse(agent.connections.back());
  CHECK(run_until([&] { return agent.opened == 4; }));
  CHECK(run_until([&] { return clients[2].was_reset(); }));
}

// Leaves no descriptors for anybody else.
struct NoDescriptors {
  NoDescriptors() {
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    const Fd next(::dup(0));
    rlimit none = before;
    none.rlim_cur = static_cast<rlim_t>(next.get());
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before); }
  rlimit before{};
};

TEST_CASE_FIXTURE(Fixture, "without descriptors it tries again later") {
  REQUIRE(create({"0:80"}));
  const Peer waiting = client();
  ports->open();
  {
    const NoDescriptors none;
    int rounds = 0;
    CHECK(run_until([&] { return ++rounds > 20; }));
    CHECK(agent.opened == 0);
  }
  asked(80);
}

TEST_CASE_FIXTURE(Fixture, "closing resets the clients and frees the ports") {
  REQUIRE(create({"0:80", "0:81"}));
  ports->open();
  Peer opening = client(0);
  asked(80);
  Peer served = client(1);
  FakeAgent::accept(asked(81, 2));
  served.say("hello");
  CHECK(run_until([&] { return agent.connections.back().hear() == "hello"; }));
  const SocketAddress address = host(0);
  ports->close();
  CHECK(run_until([&] { return opening.was_reset() && served.was_reset(); }));
  CHECK(run_until([&] { return agent.connections.back().has_ended(); }));
  ports.reset();
  const Fd again(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(again.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  CHECK(::bind(again.get(), address.get(), address.size()) == 0);
}

}  // namespace
}  // namespace msb::launcher
