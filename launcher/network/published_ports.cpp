// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/published_ports.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace msb::launcher {

namespace {

constexpr int kBacklog = 512;
// Below it, unless net.ipv4.ip_unprivileged_port_start says otherwise.
constexpr std::uint16_t kUnprivileged = 1024;

std::unexpected<Error> cannot_publish(const SocketAddress& host, int code) {
  const std::uint16_t port = host.port();
  const auto says = [code](std::string message) {
    return std::unexpected(Error{std::move(message), code});
  };
  if (code == EADDRINUSE && port != 0) {
    return says(
        fmt::format("port {} of {} is in use; publish another one, or 0 for any that is free", port,
                    host.text()));
  }
  if (code == EADDRINUSE) {
    return says(fmt::format("no port of {} is free; end a program that uses some", host.text()));
  }
  if (code == EACCES && port < kUnprivileged) {
    return says(fmt::format(
        "port {} of {} is below {}, which this user may not use; publish a higher one, or lower "
        "the limit with `sysctl net.ipv4.ip_unprivileged_port_start={}`",
        port, host.text(), kUnprivileged, port));
  }
  if (code == EADDRNOTAVAIL) {
    return says(fmt::format(
        "this host has no address {} to publish port {} on; use one that it has, or {} for all",
        host.text(), port, host.family() == AF_INET ? "0.0.0.0" : "[::]"));
  }
  if (code == EAFNOSUPPORT) {
    return says(
        fmt::format("this host has no IPv6 to publish port {} of {} with", port, host.text()));
  }
  return fail_errno(code, "cannot publish port {} of {}", port, host.text());
}

// A bound socket, in non-blocking mode; of TCP it listens.
Result<Fd> bind_port(const PublishWords& words) {
  const SocketAddress& host = words.host;
  const bool is_tcp = words.transport == Transport::kTcp;
  const int type = is_tcp ? SOCK_STREAM : SOCK_DGRAM;
  Fd socket(::socket(host.family(), type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  // "::" is not IPv4's addresses too, which may be published beside it.
  if (!socket || (host.family() == AF_INET6 &&
                  ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0)) {
    return cannot_publish(host, errno);
  }
  // Connections of a sandbox before that are still in TIME_WAIT are nobody's. With UDP it would
  // mean to share the port.
  if ((is_tcp && ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) ||
      ::bind(socket.get(), host.get(), host.size()) != 0 ||
      (is_tcp && ::listen(socket.get(), kBacklog) != 0)) {
    return cannot_publish(host, errno);
  }
  return socket;
}

}  // namespace

struct PublishedPorts::TcpPort {
  TcpPort(PublishedPorts& owner, Fd socket, std::uint16_t guest_port)
      : connections(
            owner.io_, owner.limits_.connections,
            [&owner] {
              owner.accept_more();
              owner.tell();
            },
            owner.limits_.times),
        listener(owner.io_, std::move(socket),
                 {.has_room = [this, &owner] { return owner.has_room(*this); },
                  .accepted =
                      [this, &owner, guest_port](Fd client) {
                        // Cannot fail: 0 is not published.
                        connections.add(std::move(client), owner.opener_,
                                        *protocol::encode_connect_tcp(guest_port));
                        owner.tell();
                      }}) {}
  TunnelRelays connections;
  TcpListener listener;
};

Result<std::unique_ptr<PublishedPorts>> PublishedPorts::create(AsyncIo& io,
                                                               std::span<const PublishWords> words,
                                                               protocol::Opener opener,
                                                               Limits limits) {
  std::unique_ptr<PublishedPorts> ports(new PublishedPorts(io, std::move(opener), limits));
  for (const PublishWords& each : words) {
    if (auto added = ports->add(each); !added) {
      return std::unexpected(added.error());
    }
  }
  return ports;
}

PublishedPorts::PublishedPorts(AsyncIo& io, protocol::Opener opener, Limits limits)
    : io_(io), opener_(std::move(opener)), limits_(limits), flows_(io, opener_, limits.flows) {}

PublishedPorts::~PublishedPorts() {
  close();
}

Result<void> PublishedPorts::add(const PublishWords& words) {
  auto socket = bind_port(words);
  if (!socket) {
    return std::unexpected(socket.error());
  }
  const SocketAddress bound = bound_address(socket->get());
  const std::uint16_t guest_port = words.guest_port;
  list_.push_back({words.transport, bound.text(), bound.port(), guest_port});
  if (words.transport == Transport::kUdp) {
    return flows_.add(std::move(*socket), guest_port);
  }
  tcp_ports_.emplace_back(*this, std::move(*socket), guest_port);
  return {};
}

// One port does not take the places of all.
bool PublishedPorts::has_room(const TcpPort& port) const {
  std::size_t taken = 0;
  for (const TcpPort& each : tcp_ports_) {
    const std::size_t count = each.connections.count();
    taken += &each != &port && count == 0 ? 1 : count;
  }
  return taken < limits_.connections || port.connections.count() == 0;
}

void PublishedPorts::watch(Watcher watcher) {
  connections_ = std::move(watcher.connections);
  flows_.watch(std::move(watcher.datagram));
}

void PublishedPorts::tell() const {
  if (connections_) {
    std::size_t count = 0;
    for (const TcpPort& port : tcp_ports_) {
      count += port.connections.count();
    }
    connections_(count);
  }
}

void PublishedPorts::open() {
  for (TcpPort& port : tcp_ports_) {
    port.listener.open();
  }
  flows_.open();
}

void PublishedPorts::accept_more() {
  for (TcpPort& port : tcp_ports_) {
    port.listener.accept_more();
  }
}

void PublishedPorts::close() {
  for (TcpPort& port : tcp_ports_) {
    port.listener.close();
    port.connections.close();
  }
  flows_.close();
}

}  // namespace msb::launcher
