// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/udp_flows.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launcher/network/testing.hpp"

namespace msb::launcher {
namespace {

using testing::bind_socket;
using testing::connect_socket;
using testing::FakeAgent;
using testing::framed;
using testing::loopback;
using testing::Peer;

struct Fixture {
  ~Fixture() {
    if (flows) {
      flows->close();
    }
    wire.loop->drain();
  }
  void serve(const SocketAddress& address = loopback()) {
    flows = std::make_unique<UdpFlows>(*wire.loop, agent.opener(), limits);
    Fd socket = bind_socket(SOCK_DGRAM, address);
    REQUIRE(::fcntl(socket.get(), F_SETFL, O_NONBLOCK) == 0);
    host = bound_address(socket.get());
    REQUIRE(flows->add(std::move(socket), 53));
    flows->open();
  }
  [[nodiscard]] Peer client() const { return connect_socket(SOCK_DGRAM, host); }
  // The agent's connection number `count`, which is asked for the port.
  Peer& asked(std::size_t count = 1) {
    std::optional<msb_connect> fields;
    REQUIRE(run_until([&] {
      return agent.connections.size() == count &&
             (fields = FakeAgent::asked(agent.connections.back()));
    }));
    CHECK(fields->kind == MSB_CONNECT_UDP);
    CHECK(fields->port == 53);
    return agent.connections.back();
  }
  Peer& accepted(std::size_t count = 1) {
    Peer& guest = asked(count);
    FakeAgent::accept(guest);
    return guest;
  }
  std::string next(const Peer& from) {
    std::optional<std::string> datagram;
    REQUIRE(run_until([&] { return (datagram = from.next()).has_value(); }));
    return *datagram;
  }
  bool run_until(const std::function<bool()>& condition) const {
    return testing::run_until(wire, condition);
  }
  void settle() const {
    int rounds = 0;
    CHECK(run_until([&] { return ++rounds > 20; }));
  }

  protocol::testing::Wire wire;
  FakeAgent agent;
  UdpFlows::Limits limits;
  SocketAddress host;
  std::unique_ptr<UdpFlows> flows;
};

TEST_CASE_FIXTURE(Fixture, "each sender has a connection, on which datagrams keep their sizes") {
  serve();
  const Peer one = client();
  one.say("early");
  one.say("");
  Peer& guest = asked();
  one.say("bird");
  settle();
  FakeAgent::accept(guest);
  CHECK(run_until([&] { return guest.hear() == framed("early") + framed("") + framed("bird"); }));
  const std::string large(65507, 'x');
  one.say(large);
  guest.heard.clear();
  CHECK(run_until([&] { return guest.hear() == framed(large); }));

  const Peer other = client();
  other.say("other");
  Peer& other_guest = accepted(2);
  CHECK(run_until([&] { return other_guest.hear() == framed("other"); }));

  const std::string answers = framed("first") + framed("") + framed(std::string(3000, 'y'));
  for (const char byte : answers.substr(0, 9)) {
    guest.say(std::string(1, byte));
    settle();
  }
  guest.say(answers.substr(9));
  other_guest.say(framed("for other"));
  CHECK(next(one) == "first");
  CHECK(next(one).empty());
  CHECK(next(one) == std::string(3000, 'y'));
  CHECK(next(other) == "for other");
  CHECK_FALSE(other.next());
}

TEST_CASE_FIXTURE(Fixture, "answers come from the address that was asked") {
  serve(*parse_address("0.0.0.0", 0));
  const Peer one = connect_socket(SOCK_DGRAM, *parse_address("127.0.0.2", host.port()));
  one.say("question");
  accepted().say(framed("answer"));
  CHECK(next(one) == "answer");
}

TEST_CASE_FIXTURE(Fixture, "IPv6 works as IPv4 does") {
  const Fd six(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto any = *parse_address("::1", 0);
  if (!six || ::bind(six.get(), any.get(), any.size()) != 0) {
    MESSAGE("not run: this host has no IPv6");
    return;
  }
  serve(*parse_address("::", 0));
  const Peer one = connect_socket(SOCK_DGRAM, *parse_address("::1", host.port()));
  one.say("question");
  Peer& guest = accepted();
  CHECK(run_until([&] { return guest.hear() == framed("question"); }));
  guest.say(framed("answer"));
  CHECK(next(one) == "answer");
}

TEST_CASE_FIXTURE(Fixture, "a slow guest loses datagrams") {
  serve();
  const Peer one = client();
  const std::string datagram(1000, 'x');
  SUBCASE("while its connection opens") {
    one.say(datagram);
    Peer& guest = asked();
    for (int i = 1; i < 400; ++i) {
      one.say(datagram);
      if (i % 64 == 0) {
        settle();
      }
    }
    settle();
    FakeAgent::accept(guest);
    const std::size_t most = WaitingDatagrams::kMost / framed(datagram).size();
    CHECK(run_until([&] { return guest.hear().size() >= most * framed(datagram).size(); }));
    settle();
    CHECK(guest.hear().size() == most * framed(datagram).size());
  }
  SUBCASE("that does not read") {
    one.say(datagram);
    const Peer& guest = accepted();
    settle();
    std::size_t said = 1;
    for (; said < 2000; ++said) {
      one.say(datagram);
      if (said % 64 == 0) {
        settle();
      }
    }
    settle();
    // Whole ones arrive, in order, and not all of them.
    std::string heard;
    char buffer[65536];
    int still = 0;
    CHECK(run_until([&] {
      const ssize_t size = ::recv(guest.socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      heard.append(buffer, size > 0 ? static_cast<std::size_t>(size) : 0);
      still = size > 0 ? 0 : still + 1;
      return still > 20;
    }));
    CHECK(heard.size() % framed(datagram).size() == 0);
    CHECK(heard.size() < said * framed(datagram).size());
    one.say("after");
    CHECK(run_until([&] {
      const ssize_t size = ::recv(guest.socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      return size > 0 && std::string(buffer, static_cast<std::size_t>(size)) == framed("after");
    }));
  }
}

TEST_CASE_FIXTURE(Fixture, "a sender whom the guest refuses waits before it is asked again") {
  limits.refused_for = std::chrono::milliseconds(50);
  serve();
  const Peer one = client();
  one.say("x");
  FakeAgent::refuse(asked());
  // Asked again only later, for datagrams that come then.
  CHECK(run_until([&] {
    one.say("again");
    return agent.opened == 2;
  }));
}

TEST_CASE_FIXTURE(Fixture,
                  "a sender whom the guest did not refuse is served with its next datagram") {
  limits.refused_for = std::chrono::minutes(10);
  serve();
  const Peer one = client();
  SUBCASE("when there was no way to the guest") {
    agent.gone = true;
    one.say("lost");
    CHECK(run_until([&] { return agent.opened == 1; }));
    agent.gone = false;
  }
  SUBCASE("when the connection broke") {
    one.say("lost");
    asked().socket.reset();
    settle();
    agent.connections.clear();
  }
  one.say("heard");
  Peer& guest = accepted();
  CHECK(run_until([&] { return guest.hear() == framed("heard"); }));
}

TEST_CASE_FIXTURE(Fixture, "many small answers are all given, in their order") {
  serve();
  const Peer one = client();
  one.say("question");
  Peer& guest = accepted();
  CHECK(run_until([&] { return guest.hear() == framed("question"); }));
  std::string answers;
  for (int i = 0; i < 200; ++i) {
    answers += framed(std::to_string(i));
  }
  guest.say(answers);
  for (int i = 0; i < 200; ++i) {
    REQUIRE(next(one) == std::to_string(i));
  }
}

TEST_CASE_FIXTURE(Fixture, "datagrams of the largest size wait beside each other") {
  serve();
  const Peer one = client();
  const std::string large(65507, 'x');
  one.say("first");
  Peer& guest = asked();
  one.say(large);
  one.say(large);
  settle();
  FakeAgent::accept(guest);
  CHECK(run_until([&] { return guest.hear() == framed("first") + framed(large) + framed(large); }));
}

TEST_CASE_FIXTURE(Fixture, "a flow ends when it is idle, when the guest ends it, and at the end") {
  SUBCASE("idle") {
    limits.idle = std::chrono::milliseconds(20);
    serve();
    const Peer one = client();
    one.say("x");
    Peer& guest = accepted();
    CHECK(run_until([&] { return guest.has_ended(); }));
  }
  SUBCASE("the guest's end") {
    serve();
    const Peer one = client();
    one.say("x");
    Peer& guest = accepted();
    CHECK(run_until([&] { return guest.hear() == framed("x"); }));
    guest.end();
    CHECK(run_until([&] { return guest.has_ended(); }));
    one.say("y");
    accepted(2);
  }
  SUBCASE("the end of all") {
    serve();
    const Peer one = client();
    one.say("x");
    Peer& guest = accepted();
    CHECK(run_until([&] { return guest.hear() == framed("x"); }));
    flows->close();
    CHECK(run_until([&] { return guest.has_ended(); }));
  }
}

TEST_CASE_FIXTURE(Fixture, "the flow that was idle longest gives way") {
  limits.flows = 2;
  serve();
  const Peer one = client();
  const Peer two = client();
  const Peer three = client();
  one.say("1");
  Peer& first = accepted(1);
  two.say("2");
  Peer& second = accepted(2);
  CHECK(run_until([&] { return second.hear() == framed("2"); }));
  first.say(framed("still here"));
  CHECK(next(one) == "still here");
  three.say("3");
  accepted(3);
  CHECK(run_until([&] { return second.has_ended(); }));
  CHECK_FALSE(first.has_ended());
}

}  // namespace
}  // namespace msb::launcher
