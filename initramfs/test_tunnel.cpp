// SPDX-License-Identifier: Apache-2.0
#include "initramfs/test_tunnel.hpp"

extern "C" {
#include "initramfs/clock.h"
#include "initramfs/watch.h"
}

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <utility>

namespace msb::test {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);
constexpr int kEventsPerRound = 64;

}  // namespace

Socket::Socket(int descriptor) : descriptor_(descriptor) {}

Socket::~Socket() {
  close();
}

Socket::Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void Socket::close() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

void Socket::reset() {
  linger at_once{1, 0};
  setsockopt(descriptor_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close();
}

void Socket::end() const {
  shutdown(descriptor_, SHUT_WR);
}

size_t Socket::send(std::string_view bytes) const {
  ssize_t n = ::send(descriptor_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  return n < 0 ? 0 : static_cast<size_t>(n);
}

bool Socket::receive(std::string& bytes) const {
  static char piece[256 * 1024];
  ssize_t n = recv(descriptor_, piece, sizeof piece, MSG_DONTWAIT);
  if (n > 0) bytes.append(piece, static_cast<size_t>(n));
  return n > 0 || (n < 0 && errno == EAGAIN);
}

Loop::Loop() {
  tunnels_.epoll = epoll_create1(EPOLL_CLOEXEC);
  REQUIRE(tunnels_.epoll >= 0);
  tunnels_.flows.epoll = tunnels_.epoll;
}

Loop::~Loop() {
  if (forwards_ != nullptr) forwards_end(forwards_);
  tunnels_end(&tunnels_);
  close(tunnels_.epoll);
}

void Loop::serve(forwards& all) {
  forwards_ = &all;
  REQUIRE(forwards_begin(&all, tunnels_.epoll, &tunnels_));
}

int Loop::round(int timeout_ms) {
  epoll_event events[kEventsPerRound];
  bool rests = forwards_ != nullptr && forwards_->resting;
  int count = epoll_wait(tunnels_.epoll, events, kEventsPerRound, timeout_ms);
  for (int i = 0; i < count; i++) {
    watch* one = static_cast<watch*>(events[i].data.ptr);
    uint32_t current = events[i].events & (one->events | EPOLLHUP | EPOLLERR);
    if (one->events != 0 && current != 0) one->ready(one, current);
  }
  tunnels_sweep(&tunnels_);
  if (forwards_ != nullptr) forwards_sweep(forwards_, clock_now_ms(), rests);
  return count;
}

bool Loop::until(const std::function<bool()>& condition) {
  auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    round(1);
  }
  return true;
}

int Loop::rounds_while_nothing_happens() {
  int busy = 0;
  for (int i = 0; i < 200; i++) busy += round(1) > 0 ? 1 : 0;
  return busy;
}

size_t Loop::send_until_stuck(const Socket& from) {
  std::string bytes(256 * 1024, 'x');
  size_t sent = 0;
  for (int idle = 0; idle < 50; idle++) {
    size_t n = from.send(bytes);
    sent += n;
    if (n > 0) idle = 0;
    REQUIRE(sent < 64u * 1024 * 1024);
    round(1);
  }
  return sent;
}

bool Loop::reads_end(const Socket& socket, std::string& bytes) {
  return until([&] { return !socket.receive(bytes); });
}

Socket Loop::open(const std::string& payload, const std::string& rest) {
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  tunnel_open(&tunnels_, pair[0], reinterpret_cast<const uint8_t*>(payload.data()), payload.size(),
              reinterpret_cast<const uint8_t*>(rest.data()), rest.size());
  return Socket(pair[1]);
}

std::string connect_payload(uint32_t kind, uint32_t port, const std::string& path) {
  msb_connect request{kind, port};
  return std::string(reinterpret_cast<char*>(&request), sizeof request) + path;
}

Listener::Listener(Kind kind, int backlog) : kind_(kind) {
  if (kind == Kind::kIpv4) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listen_at(reinterpret_cast<sockaddr*>(&address), sizeof address, backlog);
    port_ = ntohs(address.sin_port);
  } else if (kind == Kind::kIpv6) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = IN6ADDR_LOOPBACK_INIT;
    listen_at(reinterpret_cast<sockaddr*>(&address), sizeof address, backlog);
    port_ = ntohs(address.sin6_port);
  } else {
    REQUIRE(mkdtemp(directory_) != nullptr);
    path_ = std::string(directory_) + "/socket";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    listen_at(reinterpret_cast<sockaddr*>(&address), sizeof address, backlog);
  }
}

Listener::~Listener() {
  if (kind_ != Kind::kUnix) return;
  unlink(path_.c_str());
  rmdir(directory_);
}

void Listener::listen_at(sockaddr* address, socklen_t length, int backlog) {
  socket_ = Socket(socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  REQUIRE(bind(socket_.get(), address, length) == 0);
  REQUIRE(listen(socket_.get(), backlog) == 0);
  REQUIRE(getsockname(socket_.get(), address, &length) == 0);
}

std::string Listener::payload() const {
  return kind_ == Kind::kUnix ? connect_payload(MSB_CONNECT_UNIX, 0, path_ + '\0')
                              : connect_payload(MSB_CONNECT_TCP, port_);
}

Socket Listener::accept() const {
  return Socket(::accept(socket_.get(), nullptr, nullptr));
}

std::string done() {
  return std::string("\x60\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0", 16);
}

Ends open_ends(Loop& loop, const Listener& listener, const std::string& rest) {
  Ends ends;
  ends.host = loop.open(listener.payload(), rest);
  std::string first;
  REQUIRE(loop.until([&] {
    if (ends.guest.get() < 0) ends.guest = listener.accept();
    if (first.size() < done().size()) ends.host.receive(first);
    return ends.guest.get() >= 0 && first.size() >= done().size();
  }));
  REQUIRE(first == done());
  return ends;
}

Refusal refusal(Loop& loop, const Socket& host) {
  std::string bytes;
  REQUIRE(loop.reads_end(host, bytes));
  Refusal refusal;
  msb_frame_header header{};
  REQUIRE(bytes.size() > sizeof header + sizeof refusal.failure);
  std::memcpy(&header, bytes.data(), sizeof header);
  CHECK(header.type == MSB_REFUSED);
  CHECK(header.length == bytes.size() - sizeof header);
  std::memcpy(&refusal.failure, bytes.data() + sizeof header, sizeof refusal.failure);
  refusal.text = bytes.substr(sizeof header + sizeof refusal.failure);
  CHECK(loop.is_empty());
  return refusal;
}

std::string random_bytes(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (size_t i = 0; i + 4 <= size; i += 4) {
    uint32_t word = static_cast<uint32_t>(random());
    std::memcpy(&bytes[i], &word, sizeof word);
  }
  return bytes;
}

int in_own_network(const std::function<int()>& act) {
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(60);
    if (unshare(CLONE_NEWNET) != 0) _exit(90);
    Socket any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    if (ioctl(any.get(), SIOCSIFFLAGS, &request) != 0) _exit(91);
    _exit(act());
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace msb::test
