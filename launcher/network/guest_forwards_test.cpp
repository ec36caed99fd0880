// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/guest_forwards.hpp"

#include <doctest/doctest.h>
#include <sys/un.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launcher/network/dns_testing.hpp"
#include "launcher/network/testing.hpp"

namespace msb::launcher {
namespace {

using testing::bind_socket;
using testing::FakeAgent;
using testing::Peer;
using testing::unix_pair;
using namespace std::string_literals;

struct Fixture {
  Fixture() { REQUIRE(::mkdtemp(directory.data()) != nullptr); }
  ~Fixture() {
    if (forwards) {
      forwards->close();
    }
    wire.loop->drain();
    std::filesystem::remove_all(directory);
  }
  void start(const std::vector<std::string>& hosts) {
    auto parsed = parse_host_names(hosts);
    REQUIRE(parsed);
    options.hosts = std::move(*parsed);
    options.resolv_conf = directory + "/resolv.conf";
    forwards = std::make_unique<GuestForwards>(*wire.loop, options);
  }
  [[nodiscard]] std::string path() const { return directory + "/s=a:b"; }
  // Another sandbox's socket.
  [[nodiscard]] Fd listen() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof address.sun_path - 1);
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(socket.get(), 8) == 0);
    return socket;
  }
  [[nodiscard]] Peer connect(std::uint32_t vsock_port) const {
    auto [given, kept] = unix_pair();
    forwards->accept(vsock_port, std::move(given));
    return std::move(kept);
  }
  bool run_until(const std::function<bool()>& condition) const {
    return testing::run_until(wire, condition);
  }

  protocol::testing::Wire wire;
  std::string directory = "/tmp/msb-forwards-XXXXXX";
  GuestForwards::Options options;
  std::unique_ptr<GuestForwards> forwards;
};

TEST_CASE_FIXTURE(Fixture, "the boot file leads every name and the resolver to ports of the host") {
  std::ofstream(directory + "/resolv.conf") << "search a.example b.example\n";
  SUBCASE("names and DNS") {
    options.dns = true;
    start({"db=/s:5432", "web=/t:80", "db=/s:6432"});
    CHECK(forwards->boot_lines() ==
          "host db 127.77.1.1\n"
          "host web 127.77.1.2\n"
          "forward tcp 127.77.1.1 5432 1026\n"
          "forward tcp 127.77.1.2 80 1027\n"
          "forward tcp 127.77.1.1 6432 1028\n"
          "nameserver 127.77.0.53\n"
          "search a.example b.example\n"
          "forward tcp 127.77.0.53 53 1029\n"
          "forward udp 127.77.0.53 53 1030\n");
    CHECK(forwards->host_ports() == std::vector<std::uint32_t>{1026, 1027, 1028, 1029, 1030});
  }
  SUBCASE("names alone") {
    options.first_port = 2000;
    start({"db=/s:5432"});
    CHECK(forwards->boot_lines() == "host db 127.77.1.1\nforward tcp 127.77.1.1 5432 2000\n");
    CHECK(forwards->host_ports() == std::vector<std::uint32_t>{2000});
  }
  SUBCASE("nothing") {
    start({});
    CHECK(forwards->boot_lines().empty());
    CHECK(forwards->host_ports().empty());
  }
}

TEST_CASE_FIXTURE(Fixture,
                  "a name's port leads into the other sandbox, also if that starts later") {
  start({"other=/none:1", "db=" + path() + ":5432"});
  Peer early = connect(1027);
  CHECK(run_until([&] { return early.has_ended(); }));
  const Fd listener = listen();
  Peer guest = connect(1027);
  guest.say("query");
  Peer sandbox;
  const std::string line = "CONNECT 1025\n";
  CHECK(run_until([&] {
    if (!sandbox.socket) {
      sandbox.socket = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    return sandbox.hear().size() > line.size();
  }));
  CHECK(sandbox.heard.starts_with(line));
  sandbox.heard.erase(0, line.size());
  std::optional<msb_connect> asked;
  REQUIRE(run_until([&] { return (asked = FakeAgent::asked(sandbox)).has_value(); }));
  CHECK(asked->kind == MSB_CONNECT_TCP);
  CHECK(asked->port == 5432);
  SUBCASE("accepted") {
    FakeAgent::accept(sandbox);
    CHECK(run_until([&] { return sandbox.hear() == "query"; }));
    sandbox.say("rows");
    sandbox.socket.reset();
    CHECK(run_until([&] { return guest.has_ended(); }));
    CHECK(guest.heard == "rows");
  }
  SUBCASE("refused") {
    FakeAgent::refuse(sandbox);
    CHECK(run_until([&] { return guest.hear().empty() && (guest.ended || guest.code != 0); }));
  }
  SUBCASE("closed meanwhile") {
    forwards->close();
    CHECK(run_until([&] { return sandbox.has_ended(); }));
  }
}

TEST_CASE_FIXTURE(Fixture, "DNS is carried on by both its ports") {
  const Fd resolver = bind_socket(SOCK_DGRAM | SOCK_NONBLOCK);
  const Fd listener = bind_socket(SOCK_STREAM | SOCK_NONBLOCK, bound_address(resolver.get()));
  options.dns = true;
  options.dns_limits.port = bound_address(resolver.get()).port();
  start({"db=/s:5432"});
  const std::string query = testing::dns_query(1, "\3www\0"s);
  const Peer by_udp = connect(1028);
  by_udp.say(testing::framed(query));
  char buffer[512];
  CHECK(run_until([&] {
    return ::recv(resolver.get(), buffer, sizeof buffer, 0) == static_cast<ssize_t>(query.size());
  }));
  const Peer by_tcp = connect(1027);
  by_tcp.say(testing::framed_by_tcp(query));
  Peer accepted;
  CHECK(run_until([&] {
    if (!accepted.socket) {
      accepted.socket = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    return accepted.hear() == testing::framed_by_tcp(query);
  }));
}

TEST_CASE_FIXTURE(Fixture, "a connection to any other port is closed") {
  bool dns = false;
  SUBCASE("with DNS") {
    dns = true;
  }
  SUBCASE("without") {}
  options.dns = dns;
  start({"db=/s:5432"});
  for (const std::uint32_t port : {0U, 1024U, 1025U, dns ? 1029U : 1027U, 0xffff'ffffU}) {
    CAPTURE(port);
    Peer guest = connect(port);
    CHECK(guest.has_ended());
  }
}

}  // namespace
}  // namespace msb::launcher
