// SPDX-License-Identifier: Apache-2.0
// Tunnels: exact to the byte, bounded whoever is slow, over when they have to be.
#include <doctest/doctest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <tuple>
#include <utility>
#include <vector>

#include "initramfs/test_tunnel.hpp"

using namespace msb::test;

namespace {

bool is_root() {
  if (geteuid() == 0) return true;
  MESSAGE("skipped: only root can have a network of its own");
  return false;
}

}  // namespace

TEST_CASE("tunnel_carries_32_mib_both_ways_unchanged") {
  const std::string to_guest = random_bytes(32u * 1024 * 1024, 1);
  const std::string to_host = random_bytes(32u * 1024 * 1024, 2);
  for (Kind kind : kKinds) {
    CAPTURE(static_cast<int>(kind));
    Loop loop;
    Listener listener(kind);
    Ends ends = open_ends(loop, listener);
    size_t sent_to_guest = 0;
    size_t sent_to_host = 0;
    std::string at_guest;
    std::string at_host;
    bool host_open = true;
    bool guest_open = true;
    REQUIRE(loop.until([&] {
      for (auto [from, bytes, sent] : {std::tuple{&ends.host, &to_guest, &sent_to_guest},
                                       {&ends.guest, &to_host, &sent_to_host}}) {
        size_t n = from->send(std::string_view(*bytes).substr(*sent));
        *sent += n;
        if (n > 0 && *sent == bytes->size()) from->end();
      }
      host_open = host_open && ends.host.receive(at_host);
      guest_open = guest_open && ends.guest.receive(at_guest);
      return !host_open && !guest_open;
    }));
    CHECK(at_guest.size() == to_guest.size());
    CHECK((at_guest == to_guest));
    CHECK(at_host.size() == to_host.size());
    CHECK((at_host == to_host));
    CHECK(loop.is_empty());
  }
}

TEST_CASE("tunnel_passes_on_what_came_right_behind_connect") {
  for (Kind kind : kKinds) {
    Loop loop;
    Listener listener(kind);
    std::string rest = random_bytes(60000, 3);
    Ends ends = open_ends(loop, listener, rest);
    CHECK(ends.host.send("more") == 4);
    ends.host.end();
    std::string at_guest;
    CHECK(loop.reads_end(ends.guest, at_guest));
    CHECK((at_guest == rest + "more"));
  }
}

TEST_CASE("tunnel_passes_on_the_end_of_each_side_while_the_other_goes_on") {
  for (Kind kind : kKinds) {
    for (bool host_first : {true, false}) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(host_first);
      Loop loop;
      Listener listener(kind);
      Ends ends = open_ends(loop, listener);
      Socket& first = host_first ? ends.host : ends.guest;
      Socket& second = host_first ? ends.guest : ends.host;
      CHECK(first.send("question") == 8);
      first.end();
      std::string at_second;
      CHECK(loop.reads_end(second, at_second));
      CHECK(at_second == "question");
      CHECK(loop.rounds_while_nothing_happens() <= 3);
      CHECK_FALSE(loop.is_empty());
      CHECK(second.send("answer") == 6);
      second.end();
      std::string at_first;
      CHECK(loop.reads_end(first, at_first));
      CHECK(at_first == "answer");
      CHECK(loop.is_empty());
    }
  }
}

TEST_CASE("tunnel_to_where_nobody_listens_is_refused") {
  uint32_t free_port;
  std::string free_path;
  {
    free_port = Listener(Kind::kIpv4).port();
    free_path = Listener(Kind::kUnix).path();
  }
  Loop loop;
  Refusal tcp = refusal(loop, loop.open(connect_payload(MSB_CONNECT_TCP, free_port), "rest"));
  CHECK(tcp.failure.stage == MSB_STAGE_REQUEST);
  CHECK(tcp.failure.code == ECONNREFUSED);
  CHECK(tcp.text.find(std::to_string(free_port)) != std::string::npos);
  Refusal missing =
      refusal(loop, loop.open(connect_payload(MSB_CONNECT_UNIX, 0, free_path + '\0')));
  CHECK(missing.failure.stage == MSB_STAGE_REQUEST);
  CHECK(missing.failure.code == ENOENT);
  Refusal file = refusal(
      loop, loop.open(connect_payload(MSB_CONNECT_UNIX, 0, std::string("/dev/null\0", 10))));
  CHECK(file.failure.code == ECONNREFUSED);
}

TEST_CASE("tunnel_request_that_makes_no_sense_is_refused") {
  Loop loop;
  std::string longest = "/" + std::string(106, 'x') + '\0';
  CHECK(refusal(loop, loop.open(connect_payload(MSB_CONNECT_UNIX, 0, longest))).failure.code ==
        ENOENT);
  CHECK(
      refusal(loop, loop.open(connect_payload(MSB_CONNECT_UNIX, 0, "/" + longest))).failure.code ==
      ENAMETOOLONG);
  for (const std::string& payload :
       {connect_payload(0, 80), connect_payload(4, 80), connect_payload(MSB_CONNECT_TCP, 0),
        connect_payload(MSB_CONNECT_TCP, 65536), connect_payload(MSB_CONNECT_TCP, UINT32_MAX),
        connect_payload(MSB_CONNECT_TCP, 80, "/"),
        connect_payload(MSB_CONNECT_UNIX, 1, std::string("/a\0", 3)),
        connect_payload(MSB_CONNECT_UNIX, 0), connect_payload(MSB_CONNECT_UNIX, 0, "/a"),
        connect_payload(MSB_CONNECT_UNIX, 0, std::string("\0", 1)),
        connect_payload(MSB_CONNECT_UNIX, 0, std::string("a\0", 2)),
        connect_payload(MSB_CONNECT_UNIX, 0, std::string("\0a\0", 3)),
        connect_payload(MSB_CONNECT_UNIX, 0, std::string("/a\0b\0", 5))}) {
    Refusal refused = refusal(loop, loop.open(payload));
    CHECK(refused.failure.stage == MSB_STAGE_REQUEST);
    CHECK(refused.failure.code == EINVAL);
  }
}

TEST_CASE("tunnel_request_shorter_than_its_fixed_part_closes_the_connection") {
  Loop loop;
  Socket host = loop.open(std::string(7, '\1'));
  std::string bytes;
  CHECK(loop.reads_end(host, bytes));
  CHECK(bytes.empty());
  CHECK(loop.is_empty());
}

TEST_CASE("tunnel_to_a_unix_socket_whose_backlog_is_full_is_refused_at_once") {
  Listener listener(Kind::kUnix, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  listener.path().copy(address.sun_path, sizeof address.sun_path - 1);
  std::vector<Socket> waiting;
  int result = 0;
  while (result == 0) {
    REQUIRE(waiting.size() < 100);
    waiting.emplace_back(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    result = connect(waiting.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  Loop loop;
  CHECK(refusal(loop, loop.open(listener.payload())).failure.code == EAGAIN);
}

TEST_CASE("tunnel_to_a_port_whose_backlog_is_full_is_given_up_in_the_end") {
  Listener listener(Kind::kIpv4, 0);
  Loop loop;
  std::vector<Socket> hosts;
  for (int i = 0; i < 4; i++) hosts.push_back(loop.open(listener.payload()));
  CHECK(loop.rounds_while_nothing_happens() <= 8);
  // The first ones stand, though nobody took them from the backlog.
  std::string bytes;
  CHECK(loop.reads_end(hosts.back(), bytes));
  msb_failure failure{};
  REQUIRE(bytes.size() > sizeof(msb_frame_header) + sizeof failure);
  std::memcpy(&failure, bytes.data() + sizeof(msb_frame_header), sizeof failure);
  CHECK(failure.code == ETIMEDOUT);
}

TEST_CASE("tunnel_that_connects_is_over_when_its_host_vanishes_or_the_agent_ends") {
  Listener listener(Kind::kIpv4, 0);
  std::vector<Socket> hosts;
  Loop loop;
  for (int i = 0; i < 4; i++) hosts.push_back(loop.open(listener.payload()));
  CHECK_FALSE(loop.is_empty());
  hosts.clear();
  CHECK(loop.until([&] { return loop.is_empty(); }));
  for (int i = 0; i < 4; i++) hosts.push_back(loop.open(listener.payload()));
  CHECK_FALSE(loop.is_empty());
}

TEST_CASE("tunnel_whose_guest_resets_is_over_whatever_waits") {
  for (bool stalled : {false, true}) {
    CAPTURE(stalled);
    Loop loop;
    Listener listener(Kind::kIpv4);
    Ends ends = open_ends(loop, listener);
    if (stalled) {
      loop.send_until_stuck(ends.host);
      loop.send_until_stuck(ends.guest);
    }
    ends.guest.reset();
    CHECK(loop.until([&] { return loop.is_empty(); }));
    std::string bytes;
    CHECK(loop.reads_end(ends.host, bytes));
  }
}

TEST_CASE("tunnel_whose_host_vanishes_is_over_for_a_guest_that_ignores_ends") {
  enum class When { kIdle, kAfterItsEnd, kWithBytesOnTheWay };
  for (Kind kind : kKinds) {
    for (When when : {When::kIdle, When::kAfterItsEnd, When::kWithBytesOnTheWay}) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(static_cast<int>(when));
      Loop loop;
      Listener listener(kind);
      Ends ends = open_ends(loop, listener);
      std::string bytes;
      if (when == When::kAfterItsEnd) {
        ends.host.end();
        CHECK(loop.reads_end(ends.guest, bytes));
      }
      if (when == When::kWithBytesOnTheWay) loop.send_until_stuck(ends.guest);
      ends.host.close();
      CHECK(loop.until([&] { return loop.is_empty(); }));
      CHECK(loop.reads_end(ends.guest, bytes));
      CHECK(bytes.empty());
    }
  }
}

TEST_CASE("tunnel_whose_host_sends_and_vanishes_delivers_what_it_sent") {
  for (Kind kind : kKinds) {
    CAPTURE(static_cast<int>(kind));
    Loop loop;
    Listener listener(kind);
    Ends ends = open_ends(loop, listener);
    size_t sent = loop.send_until_stuck(ends.host);
    ends.host.close();
    CHECK(loop.rounds_while_nothing_happens() <= 3);
    std::string bytes;
    CHECK(loop.reads_end(ends.guest, bytes));
    CHECK(bytes.size() == sent);
    CHECK(loop.is_empty());
  }
}

TEST_CASE("tunnel_whose_guest_answers_without_reading_delivers_the_answer") {
  for (Kind kind : kKinds) {
    CAPTURE(static_cast<int>(kind));
    Loop loop;
    Listener listener(kind);
    Ends ends = open_ends(loop, listener);
    loop.send_until_stuck(ends.host);
    CHECK(ends.guest.send("no") == 2);
    std::string bytes;
    CHECK(loop.until([&] { return ends.host.receive(bytes) && bytes.size() == 2; }));
    ends.guest.close();
    CHECK(loop.reads_end(ends.host, bytes));
    CHECK(bytes == "no");
    CHECK(loop.is_empty());
  }
}

TEST_CASE("tunnel_holds_little_of_what_a_slow_side_does_not_read_and_does_not_spin") {
  for (Kind kind : kKinds) {
    for (bool from_host : {true, false}) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(from_host);
      Loop loop;
      Listener listener(kind);
      Ends ends = open_ends(loop, listener);
      Socket& fast = from_host ? ends.host : ends.guest;
      Socket& slow = from_host ? ends.guest : ends.host;
      // The kernel's own socket buffers take most of it: up to 4 MiB and 6 MiB with TCP
      // (net.ipv4.tcp_wmem, tcp_rmem).
      size_t sent = loop.send_until_stuck(fast);
      CHECK(sent < (kind == Kind::kUnix ? 1u : 24u) * 1024 * 1024);
      CHECK(loop.rounds_while_nothing_happens() <= 3);
      fast.end();
      CHECK(loop.rounds_while_nothing_happens() <= 3);
      std::string bytes;
      CHECK(loop.reads_end(slow, bytes));
      CHECK(bytes.size() == sent);
      CHECK(loop.rounds_while_nothing_happens() <= 3);
      slow.close();
      CHECK(loop.until([&] { return loop.is_empty(); }));
    }
  }
}

TEST_CASE("tunnel_that_is_stuck_both_ways_goes_on_when_both_read") {
  for (Kind kind : kKinds) {
    CAPTURE(static_cast<int>(kind));
    Loop loop;
    Listener listener(kind);
    Ends ends = open_ends(loop, listener);
    size_t from_host = loop.send_until_stuck(ends.host);
    size_t from_guest = loop.send_until_stuck(ends.guest);
    ends.host.end();
    ends.guest.end();
    CHECK(loop.rounds_while_nothing_happens() <= 5);
    std::string at_host;
    std::string at_guest;
    CHECK(loop.reads_end(ends.host, at_host));
    CHECK(loop.rounds_while_nothing_happens() <= 3);
    CHECK(loop.reads_end(ends.guest, at_guest));
    CHECK(at_host.size() == from_guest);
    CHECK(at_guest.size() == from_host);
    CHECK(loop.is_empty());
  }
}

TEST_CASE("tunnels_by_the_hundred_keep_their_bytes_apart") {
  constexpr size_t kCount = 200;
  Loop loop;
  Listener listener(Kind::kIpv4);
  struct Talk {
    Socket host;
    std::string sent;
    std::string received;
    bool open = true;
  };
  struct Echo {
    Socket socket;
    std::string waiting;
    bool open = true;
    bool ended = false;
  };
  std::vector<Talk> talks(kCount);
  std::vector<Echo> echoes;
  for (size_t i = 0; i < kCount; i++) {
    talks[i].sent = random_bytes(20000, static_cast<unsigned>(i));
    talks[i].host = loop.open(listener.payload());
    REQUIRE(talks[i].host.send(talks[i].sent) == talks[i].sent.size());
    talks[i].host.end();
  }
  CHECK(loop.until([&] {
    for (Socket next = listener.accept(); next.get() >= 0; next = listener.accept()) {
      echoes.emplace_back().socket = std::move(next);
    }
    for (Echo& echo : echoes) {
      echo.open = echo.open && echo.socket.receive(echo.waiting);
      echo.waiting.erase(0, echo.socket.send(echo.waiting));
      if (!echo.open && echo.waiting.empty() && !std::exchange(echo.ended, true)) echo.socket.end();
    }
    bool any_open = false;
    for (Talk& talk : talks) {
      talk.open = talk.open && talk.host.receive(talk.received);
      any_open = any_open || talk.open;
    }
    return !any_open;
  }));
  for (const Talk& talk : talks) CHECK((talk.received == done() + talk.sent));
  CHECK(echoes.size() == kCount);
  CHECK(loop.is_empty());
}

TEST_CASE("tunnels_whose_both_sides_vanish_in_one_round_are_freed_once") {
  for (Kind kind : kKinds) {
    Loop loop;
    Listener listener(kind);
    std::vector<Ends> all;
    for (int i = 0; i < 20; i++) all.push_back(open_ends(loop, listener));
    for (Ends& ends : all) {
      CHECK(ends.host.send("x") == 1);
      CHECK(ends.guest.send("x") == 1);
      ends.guest.reset();
      ends.host.close();
    }
    CHECK(loop.until([&] { return loop.is_empty(); }));
  }
}

TEST_CASE("tunnels_end_with_the_agent_in_any_state") {
  Listener listener(Kind::kIpv4);
  Socket host;
  Socket guest;
  {
    Loop loop;
    Ends ends = open_ends(loop, listener);
    host = std::move(ends.host);
    guest = std::move(ends.guest);
    loop.send_until_stuck(host);
  }
  Loop none;
  std::string bytes;
  CHECK(none.reads_end(host, bytes));
  CHECK(none.reads_end(guest, bytes));
}

TEST_CASE("tunnel_to_who_listens_at_the_card_alone_goes_there") {
  // Any address of this machine takes the part of the card's.
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 8);
  socklen_t length = sizeof address;
  auto* any = reinterpret_cast<sockaddr*>(&address);
  Socket listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  REQUIRE(bind(listener.get(), any, length) == 0);
  REQUIRE(listen(listener.get(), 1) == 0);
  REQUIRE(getsockname(listener.get(), any, &length) == 0);
  std::string payload = connect_payload(MSB_CONNECT_TCP, ntohs(address.sin_port));
  Loop loop;
  CHECK(refusal(loop, loop.open(payload)).failure.code == ECONNREFUSED);
  boot_card card{};
  card.addresses[BOOT_IPV4].present = true;
  std::memcpy(card.addresses[BOOT_IPV4].bytes, &address.sin_addr, sizeof address.sin_addr);
  loop.all().card = &card;
  Socket host = loop.open(payload, "x");
  Socket guest;
  std::string bytes;
  CHECK(loop.until([&] {
    if (guest.get() < 0) guest = Socket(accept(listener.get(), nullptr, nullptr));
    return guest.get() >= 0 && guest.receive(bytes) && bytes == "x";
  }));
}

TEST_CASE("tunnel_never_connects_to_itself") {
  if (!is_root()) return;
  CHECK(in_own_network([] {
          // The only port that a connection can be given is the one that it goes to.
          std::ofstream("/proc/sys/net/ipv4/ip_local_port_range") << "6000 6000";
          Loop loop;
          Refusal refused = refusal(loop, loop.open(connect_payload(MSB_CONNECT_TCP, 6000)));
          return refused.failure.code == ECONNREFUSED ? 0 : static_cast<int>(refused.failure.code);
        }) == 0);
}

TEST_CASE("tunnel_in_a_guest_without_ipv4_goes_to_ipv6") {
  if (!is_root()) return;
  CHECK(in_own_network([] {
          Socket any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
          ifreq request{};
          std::strcpy(request.ifr_name, "lo");
          request.ifr_addr.sa_family = AF_INET;
          if (ioctl(any.get(), SIOCSIFADDR, &request) != 0) return 92;  // takes 127.0.0.1 away
          Loop loop;
          Listener listener(Kind::kIpv6);
          Ends ends = open_ends(loop, listener);
          std::string bytes;
          ends.guest.send("x");
          return loop.until([&] { return ends.host.receive(bytes) && bytes == "x"; }) ? 0 : 93;
        }) == 0);
}
