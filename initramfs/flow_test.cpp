// SPDX-License-Identifier: Apache-2.0
// Tunnels of datagrams: CONNECT with kind UDP.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "initramfs/test_tunnel.hpp"

using namespace msb::test;

namespace {

std::string framed(const std::string& datagram) {
  const char length[] = {static_cast<char>(datagram.size() & 0xff),
                         static_cast<char>(datagram.size() >> 8)};
  return std::string(length, sizeof length) + datagram;
}

/// A server of datagrams in the guest, at a port of its own.
class Server {
 public:
  explicit Server(int family, uint16_t port = 0)
      : socket_(socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_in ipv4{};
    ipv4.sin_family = AF_INET;
    ipv4.sin_port = htons(port);
    ipv4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sockaddr_in6 ipv6{};
    ipv6.sin6_family = AF_INET6;
    ipv6.sin6_port = htons(port);
    ipv6.sin6_addr = IN6ADDR_LOOPBACK_INIT;
    sockaddr* address =
        family == AF_INET ? reinterpret_cast<sockaddr*>(&ipv4) : reinterpret_cast<sockaddr*>(&ipv6);
    socklen_t length = family == AF_INET ? sizeof ipv4 : sizeof ipv6;
    REQUIRE(bind(socket_.get(), address, length) == 0);
    REQUIRE(getsockname(socket_.get(), address, &length) == 0);
    port_ = ntohs(family == AF_INET ? ipv4.sin_port : ipv6.sin6_port);
  }

  uint16_t port() const { return port_; }
  /// False when there is no datagram yet. What comes later goes back to who sent this one.
  bool receive(std::string& datagram) {
    static char bytes[70000];
    peer_length_ = sizeof peer_;
    ssize_t n = recvfrom(socket_.get(), bytes, sizeof bytes, MSG_DONTWAIT,
                         reinterpret_cast<sockaddr*>(&peer_), &peer_length_);
    if (n < 0) return false;
    datagram.assign(bytes, static_cast<size_t>(n));
    return true;
  }
  bool answer(const std::string& datagram) const {
    return sendto(socket_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT,
                  reinterpret_cast<const sockaddr*>(&peer_), peer_length_) >= 0;
  }

 private:
  Socket socket_;
  uint16_t port_ = 0;
  sockaddr_storage peer_{};
  socklen_t peer_length_ = 0;
};

bool reads(Loop& loop, const Socket& host, const std::string& expected) {
  std::string bytes;
  bool open = true;
  bool came = loop.until([&] {
    open = open && host.receive(bytes);
    return !open || bytes.size() >= expected.size();
  });
  return came && bytes == expected;
}

std::string connect_udp(uint16_t port) {
  return connect_payload(MSB_CONNECT_UDP, port);
}

}  // namespace

TEST_CASE("flow_carries_datagrams_both_ways_to_where_somebody_is") {
  for (int family : {AF_INET, AF_INET6}) {
    CAPTURE(family);
    Loop loop;
    Server server(family);
    Socket host = loop.open(connect_udp(server.port()), framed("first"));
    CHECK(reads(loop, host, done()));
    std::string got;
    REQUIRE(loop.until([&] { return server.receive(got); }));
    CHECK(got == "first");
    for (const std::string& datagram :
         {std::string(), std::string("x"), random_bytes(65507, 1), std::string()}) {
      host.send(framed(datagram));
      got = "nothing";
      REQUIRE(loop.until([&] { return server.receive(got); }));
      CHECK((got == datagram));
      REQUIRE(server.answer(datagram));
      CHECK(reads(loop, host, framed(datagram)));
    }
    CHECK(loop.rounds_while_nothing_happens() <= 1);
    host.close();
    CHECK(loop.until([&] { return loop.is_empty(); }));
  }
}

TEST_CASE("flow_to_nobody_loses_datagrams_until_somebody_comes") {
  uint16_t port = Server(AF_INET).port();
  Loop loop;
  Socket host = loop.open(connect_udp(port), framed("lost"));
  CHECK(reads(loop, host, done()));
  for (int i = 0; i < 5; i++) {
    host.send(framed("lost"));
    loop.round(1);
  }
  CHECK(loop.rounds_while_nothing_happens() <= 3);
  Server server(AF_INET, port);
  host.send(framed("heard"));
  std::string got;
  REQUIRE(loop.until([&] { return server.receive(got); }));
  CHECK(got == "heard");
  CHECK_FALSE(loop.is_empty());
}

TEST_CASE("flow_goes_where_somebody_is_by_now") {
  uint16_t port = Server(AF_INET6).port();
  Loop loop;
  Socket host = loop.open(connect_udp(port));
  CHECK(reads(loop, host, done()));
  for (int family : {AF_INET6, AF_INET}) {
    CAPTURE(family);
    Server server(family, port);
    std::string got;
    // The first is lost, which tells that nobody was there.
    REQUIRE(loop.until([&] {
      host.send(framed("heard"));
      return server.receive(got);
    }));
    CHECK(got == "heard");
    REQUIRE(server.answer("answer"));
    CHECK(reads(loop, host, framed("answer")));
  }
}

TEST_CASE("flow_carries_datagrams_of_the_largest_size_that_come_together") {
  Loop loop;
  Server server(AF_INET);
  Socket host = loop.open(connect_udp(server.port()), framed("hello"));
  CHECK(reads(loop, host, done()));
  std::string got;
  REQUIRE(loop.until([&] { return server.receive(got); }));
  std::string large = random_bytes(65507, 1);
  REQUIRE(server.answer(large));
  REQUIRE(server.answer(large));
  CHECK(reads(loop, host, framed(large) + framed(large)));
}

TEST_CASE("flow_ends_with_the_stream_and_with_a_length_that_no_datagram_has") {
  Server server(AF_INET);
  for (bool ends : {true, false}) {
    Loop loop;
    Socket host = loop.open(connect_udp(server.port()));
    CHECK(reads(loop, host, done()));
    if (ends) {
      host.end();
    } else {
      host.send("\xff\xff");
    }
    std::string rest;
    CHECK(loop.reads_end(host, rest));
    CHECK(loop.is_empty());
  }
  Loop loop;
  std::string rest;
  Socket host = loop.open(connect_udp(server.port()), "\xff\xff");
  CHECK(loop.reads_end(host, rest));
  CHECK(loop.is_empty());
}

TEST_CASE("flow_to_a_host_that_does_not_read_loses_datagrams_and_keeps_few") {
  Loop loop;
  Server server(AF_INET);
  Socket host = loop.open(connect_udp(server.port()), framed("hello"));
  std::string got;
  REQUIRE(loop.until([&] { return server.receive(got); }));
  const size_t sent = 4000;
  for (size_t i = 0; i < sent; i++) {
    server.answer(std::string(1000, 'x'));
    if (i % 8 == 0) loop.round(0);
  }
  CHECK(loop.rounds_while_nothing_happens() <= 10);
  // Whole ones, as many as the sockets and the limit hold.
  std::string bytes;
  for (int i = 0; i < 200; i++) {
    host.receive(bytes);
    loop.round(1);
  }
  REQUIRE(bytes.size() > done().size());
  bytes.erase(0, done().size());
  CHECK(bytes.size() % framed(std::string(1000, 'x')).size() == 0);
  CHECK(bytes.size() < sent * 1002);
  REQUIRE(server.answer("after"));
  CHECK(reads(loop, host, framed("after")));
}

TEST_CASE("flow_request_that_makes_no_sense_is_refused") {
  Loop loop;
  for (const std::string& payload :
       {connect_payload(MSB_CONNECT_UDP, 0), connect_payload(MSB_CONNECT_UDP, 65536),
        connect_payload(MSB_CONNECT_UDP, 53, std::string("/a\0", 3)), connect_payload(4, 53)}) {
    CHECK(refusal(loop, loop.open(payload)).failure.stage == MSB_STAGE_REQUEST);
  }
}
