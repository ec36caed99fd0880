// SPDX-License-Identifier: Apache-2.0
// Sockets of this very process, found by what a network would see of them.
extern "C" {
#include "initramfs/socket_owner.h"

#include "initramfs/clock.h"
#include "initramfs/socket_lookup.h"
}

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

namespace {

/// A socket at a loopback address; closed at the end.
class Bound {
 public:
  Bound(int family, int type) : descriptor_(socket(family, type | SOCK_CLOEXEC, 0)) {
    std::memset(&address, 0, sizeof address);
    if (family == AF_INET) {
      address.ipv4.sin_family = AF_INET;
      address.ipv4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else {
      address.ipv6.sin6_family = AF_INET6;
      address.ipv6.sin6_addr = IN6ADDR_LOOPBACK_INIT;
    }
    REQUIRE(bind(descriptor_, &address.any, size()) == 0);
    read_address();
  }
  ~Bound() { close(descriptor_); }
  Bound(const Bound&) = delete;
  Bound& operator=(const Bound&) = delete;

  int get() const { return descriptor_; }
  uint16_t port() const { return ntohs(address.ipv4.sin_port); }  // both have it at one place
  void connect_to(const Bound& other) {
    REQUIRE(connect(descriptor_, &other.address.any, other.size()) == 0);
    read_address();
  }
  socklen_t size() const {
    return address.any.sa_family == AF_INET ? sizeof address.ipv4 : sizeof address.ipv6;
  }

  guest_address address;

 private:
  void read_address() {
    socklen_t length = sizeof address;
    REQUIRE(getsockname(descriptor_, &address.any, &length) == 0);
  }
  int descriptor_;
};

msb_socket ends(const Bound& local, const Bound& remote, uint32_t protocol) {
  msb_socket made{};
  made.protocol = protocol;
  made.local_port = local.port();
  made.remote_port = remote.port();
  made.family = remote.address.any.sa_family == AF_INET ? 4 : 6;
  if (made.family == 4) {
    std::memcpy(made.remote, &remote.address.ipv4.sin_addr, 4);
  } else {
    std::memcpy(made.remote, &remote.address.ipv6.sin6_addr, 16);
  }
  return made;
}

bool find(const msb_socket& socket, socket_owner& owner) {
  constexpr long kPatienceMs = 30'000;
  return socket_owner_find(&socket, clock_now_ms() + kPatienceMs, &owner);
}

/// Whether this process is found, as what it is.
bool is_mine(const msb_socket& socket) {
  socket_owner owner{};
  char name[16] = {};
  prctl(PR_GET_NAME, name);
  return find(socket, owner) && owner.fields.pid == static_cast<uint32_t>(getpid()) &&
         owner.fields.user == geteuid() && std::string(owner.name) == name;
}

bool is_nobodys(const msb_socket& socket) {
  socket_owner owner{};
  return !find(socket, owner);
}

}  // namespace

TEST_CASE("socket_owner_of_a_tcp_connection_is_found_by_both_ends") {
  for (int family : {AF_INET, AF_INET6}) {
    CAPTURE(family);
    Bound listener(family, SOCK_STREAM);
    Bound client(family, SOCK_STREAM);
    REQUIRE(listen(listener.get(), 1) == 0);
    client.connect_to(listener);
    msb_socket socket = ends(client, listener, IPPROTO_TCP);
    CHECK(is_mine(socket));
    socket.remote[3] ^= 1;
    CHECK(is_nobodys(socket));
    socket = ends(client, listener, IPPROTO_TCP);
    socket.remote_port ^= 1;
    CHECK(is_nobodys(socket));
    socket = ends(client, listener, IPPROTO_UDP);
    CHECK(is_nobodys(socket));
  }
}

TEST_CASE("socket_owner_of_a_connection_that_is_being_made_is_found") {
  Bound listener(AF_INET, SOCK_STREAM);
  REQUIRE(listen(listener.get(), 0) == 0);
  // One fills the backlog, and the next waits.
  Bound first(AF_INET, SOCK_STREAM);
  first.connect_to(listener);
  Bound second(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
  connect(second.get(), &listener.address.any, listener.size());
  CHECK(is_mine(ends(second, listener, IPPROTO_TCP)));
}

TEST_CASE("socket_owner_of_udp_is_who_is_connected_or_else_bound_to_the_port") {
  for (int family : {AF_INET, AF_INET6}) {
    CAPTURE(family);
    Bound server(family, SOCK_DGRAM);
    Bound client(family, SOCK_DGRAM);
    CHECK(is_mine(ends(client, server, IPPROTO_UDP)));
    client.connect_to(server);
    CHECK(is_mine(ends(client, server, IPPROTO_UDP)));
    msb_socket other = ends(client, server, IPPROTO_UDP);
    other.remote_port ^= 1;
    CHECK(is_nobodys(other));
  }
}

TEST_CASE("socket_owner_of_ipv4_is_found_when_its_socket_is_one_of_ipv6") {
  Bound listener(AF_INET, SOCK_STREAM);
  REQUIRE(listen(listener.get(), 1) == 0);
  int client = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 mapped{};
  mapped.sin6_family = AF_INET6;
  mapped.sin6_port = listener.address.ipv4.sin_port;
  REQUIRE(inet_pton(AF_INET6, "::ffff:127.0.0.1", &mapped.sin6_addr) == 1);
  REQUIRE(connect(client, reinterpret_cast<sockaddr*>(&mapped), sizeof mapped) == 0);
  socklen_t length = sizeof mapped;
  REQUIRE(getsockname(client, reinterpret_cast<sockaddr*>(&mapped), &length) == 0);
  msb_socket socket = ends(listener, listener, IPPROTO_TCP);
  socket.local_port = ntohs(mapped.sin6_port);
  CHECK(is_mine(socket));
  close(client);
}

TEST_CASE("socket_owner_is_looked_for_among_so_many_descriptors_only") {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  rlimit many = files;
  many.rlim_cur = many.rlim_max;
  setrlimit(RLIMIT_NOFILE, &many);
  if (many.rlim_cur < 2 * SOCKET_OWNER_DESCRIPTORS_OF_ONE_MAX) {
    MESSAGE("skipped: too few descriptors");
    return;
  }
  Bound server(AF_INET, SOCK_DGRAM);
  std::vector<int> others;
  for (unsigned i = 0; i < SOCKET_OWNER_DESCRIPTORS_OF_ONE_MAX; i++) others.push_back(dup(0));
  Bound client(AF_INET, SOCK_DGRAM);
  CHECK(is_mine(ends(server, client, IPPROTO_UDP)));
  CHECK(is_nobodys(ends(client, server, IPPROTO_UDP)));
  for (int other : others) close(other);
  CHECK(is_mine(ends(client, server, IPPROTO_UDP)));
  setrlimit(RLIMIT_NOFILE, &files);
}

TEST_CASE("socket_lookup_finds_who_would_get_a_datagram") {
  for (int family : {AF_INET, AF_INET6}) {
    CAPTURE(family);
    guest_address free{};
    {
      Bound server(family, SOCK_DGRAM);
      CHECK(socket_lookup_receiver(&server.address));
      free = server.address;
    }
    CHECK_FALSE(socket_lookup_receiver(&free));
    // One that has a peer gets nothing from others.
    Bound server(family, SOCK_DGRAM);
    Bound client(family, SOCK_DGRAM);
    client.connect_to(server);
    CHECK_FALSE(socket_lookup_receiver(&client.address));
  }
}
