// SPDX-License-Identifier: Apache-2.0
// Forwards, with a Unix socket in place of the host's vsock ports.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "initramfs/test_agent.hpp"
#include "initramfs/test_tunnel.hpp"

extern "C" {
#include "initramfs/agent.h"
#include "initramfs/clock.h"
}

using namespace msb::test;

namespace {

/// How the host's side of a connection begins.
std::optional<sockaddr_un> host_address;
std::optional<sockaddr_in> slow_host;
uint32_t last_port = 0;

int connect_host(uint32_t port) {
  last_port = port;
  int family = slow_host ? AF_INET : AF_UNIX;
  int made = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) return -1;
  const auto* any = slow_host ? reinterpret_cast<const sockaddr*>(&*slow_host)
                              : reinterpret_cast<const sockaddr*>(&*host_address);
  socklen_t length = slow_host ? sizeof *slow_host : sizeof *host_address;
  if (connect(made, any, length) == 0 || errno == EINPROGRESS) return made;
  close(made);
  return -1;
}

sockaddr_in at(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 6);
  return address;
}

uint16_t free_port(int type) {
  Socket any(socket(AF_INET, type | SOCK_CLOEXEC, 0));
  sockaddr_in address = at(0);
  socklen_t length = sizeof address;
  REQUIRE(bind(any.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(getsockname(any.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
  return ntohs(address.sin_port);
}

/// One forward, served, and the host that it leads to.
class World {
 public:
  explicit World(int protocol, bool is_nameserver = false)
      : type_(protocol == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::string path = host_.path();
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    host_address = address;
    slow_host.reset();
    port_ = free_port(type_);
    network_.forward_count = 1;
    network_.forwards[0] = {
        .protocol = protocol, .address = at(0).sin_addr, .port = port_, .host_port = 1030};
    if (is_nameserver) network_.nameservers[network_.nameserver_count++] = "127.0.0.7";
    failure why{};
    REQUIRE(forwards_open(&forwards_, &network_, connect_host, &why));
    loop.serve(forwards_);
  }

  /// A program that connects to the forward.
  Socket program() const {
    Socket made(socket(AF_INET, type_ | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in address = at(port_);
    connect(made.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    return made;
  }
  /// The host's end of the next connection.
  Socket accept() {
    Socket host;
    REQUIRE(loop.until([&] {
      host = host_.accept();
      return host.get() >= 0;
    }));
    return host;
  }
  bool is_reset(const Socket& program) {
    int code = 0;
    return loop.until([&] {
      char byte;
      code = recv(program.get(), &byte, 1, MSG_DONTWAIT) < 0 ? errno : 0;
      return code != EAGAIN;
    }) && (code == ECONNRESET || code == ECONNREFUSED);
  }
  const forwards& all() const { return forwards_; }
  const boot_network& network() const { return network_; }

 private:
  int type_;
  uint16_t port_ = 0;
  Listener host_{Kind::kUnix, 1000};
  boot_network network_{};
  forwards forwards_{};

 public:
  Loop loop;  // goes first
};

bool reads(Loop& loop, const Socket& socket, const std::string& expected) {
  std::string bytes;
  bool came = loop.until([&] {
    socket.receive(bytes);
    return bytes.size() >= expected.size();
  });
  return came && bytes == expected;
}

}  // namespace

TEST_CASE("forward_joins_a_tcp_connection_to_the_port_of_the_host") {
  World world(IPPROTO_TCP);
  Socket program = world.program();
  Socket host = world.accept();
  CHECK(last_port == 1030);
  CHECK(program.send("question") == 8);
  program.end();
  std::string question;
  CHECK(world.loop.reads_end(host, question));
  CHECK(question == "question");
  CHECK(world.all().others.connections == 1);
  CHECK(host.send("answer") == 6);
  host.close();
  std::string answer;
  CHECK(world.loop.reads_end(program, answer));
  CHECK(answer == "answer");
  CHECK(world.loop.until([&] { return world.all().others.connections == 0; }));
  CHECK(world.loop.is_empty());
}

TEST_CASE("forward_resets_a_connection_that_the_host_refuses") {
  World world(IPPROTO_TCP);
  host_address->sun_path[1] = '?';
  Socket program = world.program();
  CHECK(world.is_reset(program));
  CHECK(world.all().others.connections == 0);
}

TEST_CASE("forward_resets_a_connection_that_the_host_refuses_later") {
  World world(IPPROTO_TCP);
  // Its backlog is full, so that connecting takes until the next SYN: that finds nobody.
  std::optional<Listener> full(std::in_place, Kind::kIpv4, 0);
  slow_host.emplace();
  slow_host->sin_family = AF_INET;
  slow_host->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  slow_host->sin_port = htons(full->port());
  Socket first(connect_host(0));
  Socket program = world.program();
  CHECK(world.loop.until([&] { return world.all().others.connections == 1; }));
  CHECK(program.send("question") == 8);
  CHECK(world.loop.rounds_while_nothing_happens() <= 3);
  full.reset();
  CHECK(world.is_reset(program));
  CHECK(world.all().others.connections == 0);
  CHECK(world.loop.is_empty());
}

TEST_CASE("forward_accepts_no_more_than_the_limit_until_one_ends") {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  rlimit many = files;
  many.rlim_cur = many.rlim_max;
  setrlimit(RLIMIT_NOFILE, &many);
  if (many.rlim_cur < 5 * FORWARD_CONNECTIONS_MAX) {
    MESSAGE("skipped: too few descriptors");
    return;
  }
  for (bool is_nameserver : {false, true}) {
    CAPTURE(is_nameserver);
    World world(IPPROTO_TCP, is_nameserver);
    const auto& limit = is_nameserver ? world.all().nameservers : world.all().others;
    const uint32_t most =
        is_nameserver ? FORWARD_NAMESERVER_CONNECTIONS_MAX : FORWARD_CONNECTIONS_MAX;
    std::vector<Socket> programs;
    std::vector<Socket> hosts;
    for (uint32_t i = 0; i < most; i++) {
      programs.push_back(world.program());
      hosts.push_back(world.accept());
    }
    Socket late = world.program();
    CHECK(world.loop.rounds_while_nothing_happens() <= 3);
    CHECK(limit.connections == most);
    hosts[7].close();
    programs[7].close();
    Socket host = world.accept();
    CHECK(late.send("late") == 4);
    CHECK(reads(world.loop, host, "late"));
  }
  setrlimit(RLIMIT_NOFILE, &files);
}

TEST_CASE("forward_does_not_spin_without_descriptors_and_accepts_later") {
  World world(IPPROTO_TCP);
  Socket program = world.program();
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  rlimit none = files;
  none.rlim_cur = 0;
  setrlimit(RLIMIT_NOFILE, &none);
  world.loop.round(100);
  CHECK(world.all().resting);
  CHECK(world.loop.round(20) == 0);
  setrlimit(RLIMIT_NOFILE, &files);
  Socket host = world.accept();
  CHECK(program.send("x") == 1);
  CHECK(reads(world.loop, host, "x"));
}

TEST_CASE("forward_that_cannot_be_opened_is_named") {
  World world(IPPROTO_TCP);
  forwards second{};
  failure why{};
  CHECK_FALSE(forwards_open(&second, &world.network(), connect_host, &why));
  CHECK(why.stage == MSB_STAGE_BOOT);
  CHECK(why.code == EADDRINUSE);
  CHECK(std::string(why.text).find("tcp 127.0.0.7:") != std::string::npos);
  CHECK(second.count == 0);
}

TEST_CASE("forward_of_datagrams_has_a_connection_for_each_sender") {
  World world(IPPROTO_UDP);
  Socket one = world.program();
  CHECK(one.send("from one") == 8);
  Socket host_of_one = world.accept();
  Socket two = world.program();
  CHECK(two.send("from two") == 8);
  Socket host_of_two = world.accept();
  CHECK(reads(world.loop, host_of_one, std::string("\x08\0from one", 10)));
  CHECK(reads(world.loop, host_of_two, std::string("\x08\0from two", 10)));
  CHECK(host_of_two.send(std::string("\x06\0to two\x06\0to two", 16)) == 16);
  CHECK(host_of_one.send(std::string("\x06\0to one", 8)) == 8);
  CHECK(reads(world.loop, one, "to one"));
  CHECK(reads(world.loop, two, "to twoto two"));
  CHECK(one.send("again") == 5);
  CHECK(reads(world.loop, host_of_one, std::string("\x05\0again", 7)));
  CHECK(world.all().flows.count == 2);
  host_of_one.close();
  CHECK(world.loop.until([&] { return world.all().flows.count == 1; }));
  CHECK(one.send("anew") == 4);
  CHECK(reads(world.loop, world.accept(), std::string("\x04\0anew", 6)));
}

TEST_CASE("forward_of_datagrams_ends_idle_flows") {
  World world(IPPROTO_UDP);
  CHECK(flows_deadline(&world.all().flows) == -1);
  Socket program = world.program();
  CHECK(program.send("x") == 1);
  Socket host = world.accept();
  long now = clock_now_ms();
  long deadline = flows_deadline(&world.all().flows);
  CHECK(deadline > now);
  CHECK(deadline <= now + FLOW_IDLE_MS);
  auto* flows = const_cast<::flows*>(&world.all().flows);
  flows_expire(flows, deadline - 1);
  CHECK(flows->count == 1);
  flows_expire(flows, deadline);
  CHECK(flows->count == 0);
  std::string rest;
  CHECK(world.loop.reads_end(host, rest));
}

TEST_CASE("forward_of_datagrams_gives_the_place_of_the_oldest_sender_away") {
  World world(IPPROTO_UDP);
  std::vector<Socket> programs;
  std::vector<Socket> hosts;
  for (uint32_t i = 0; i <= FLOW_SENDERS_MAX; i++) {
    programs.push_back(world.program());
    CHECK(programs.back().send("x") == 1);
    hosts.push_back(world.accept());
    if (i == 1) {
      // The first was used last.
      CHECK(programs[0].send("y") == 1);
      CHECK(reads(world.loop, hosts[0], std::string("\x01\0x\x01\0y", 6)));
    }
  }
  CHECK(world.all().flows.count == FLOW_SENDERS_MAX);
  std::string bytes;
  CHECK(world.loop.reads_end(hosts[1], bytes));
  bytes.clear();
  CHECK(hosts[0].receive(bytes));
}

TEST_CASE("forward_of_datagrams_loses_them_while_the_host_refuses") {
  World world(IPPROTO_UDP);
  sockaddr_un right = *host_address;
  host_address->sun_path[1] = '?';
  Socket program = world.program();
  CHECK(program.send("lost") == 4);
  for (int i = 0; i < 5; i++) world.loop.round(1);
  CHECK(world.all().flows.count == 0);
  host_address = right;
  CHECK(program.send("heard") == 5);
  CHECK(reads(world.loop, world.accept(), std::string("\x05\0heard", 7)));
}

TEST_CASE("forward_of_an_agent_is_served_and_its_program_is_found") {
  Listener host(Kind::kUnix, 10);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  host.path().copy(address.sun_path, sizeof address.sun_path - 1);
  host_address = address;
  slow_host.reset();
  static boot_network network;
  static forwards all;
  network = {};
  network.forward_count = 1;
  network.forwards[0] = {.protocol = IPPROTO_TCP,
                         .address = at(0).sin_addr,
                         .port = free_port(SOCK_STREAM),
                         .host_port = 1030};
  Agent agent(
      Agent::Namespace::kNone, [] {},
      [](agent_options& options) {
        failure why{};
        if (!forwards_open(&all, &network, connect_host, &why)) _exit(97);
        options.forwards = &all;
      });
  Socket program;
  sockaddr_in to = at(network.forwards[0].port);
  Loop loop;  // that has nothing to do
  REQUIRE(loop.until([&] {
    program = Socket(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return connect(program.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
  }));
  Socket end;
  REQUIRE(loop.until([&] {
    end = host.accept();
    return end.get() >= 0;
  }));
  CHECK(program.send("through") == 7);
  CHECK(reads(loop, end, "through"));
  sockaddr_in own{};
  socklen_t length = sizeof own;
  REQUIRE(getsockname(program.get(), reinterpret_cast<sockaddr*>(&own), &length) == 0);
  msb_socket ends{.family = 4,
                  .protocol = IPPROTO_TCP,
                  .local_port = ntohs(own.sin_port),
                  .remote_port = ntohs(to.sin_port),
                  .reserved = 0,
                  .remote = {}};
  std::memcpy(ends.remote, &to.sin_addr, sizeof to.sin_addr);
  std::vector<Frame> answer;
  // In the time that the agent takes for it, a busy host may not get far.
  for (int i = 0; i < 20 && (answer.size() != 1 || answer[0].type != MSB_OWNER); i++) {
    answer = agent.request(MSB_SOCKET_OWNER, bytes_of(ends));
  }
  REQUIRE(answer.size() == 1);
  CHECK(answer[0].type == MSB_OWNER);
  CHECK(answer[0].as<msb_owner>().pid == static_cast<uint32_t>(getpid()));
  CHECK(answer[0].payload.substr(sizeof(msb_owner)) == "initramfs_test");
}
