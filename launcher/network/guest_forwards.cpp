// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/guest_forwards.hpp"

#include <fcntl.h>

#include <utility>

#include "base/result.hpp"
#include "protocol/host_frames.hpp"
#include "protocol/opener.hpp"

namespace msb::launcher {

namespace {

constexpr std::string_view kResolver = "127.77.0.53";  // in the guest
constexpr std::uint16_t kDnsPort = 53;

std::string forward_line(std::string_view protocol, std::string_view address, std::uint16_t port,
                         std::uint32_t vsock_port) {
  return fmt::format("forward {} {} {} {}\n", protocol, address, port, vsock_port);
}

}  // namespace

GuestForwards::GuestForwards(AsyncIo& io, Options options)
    : hosts_(std::move(options.hosts)),
      first_port_(options.first_port),
      connections_(io, options.connections) {
  if (options.dns) {
    dns_.emplace(io, std::move(options.resolv_conf), options.dns_limits);
  }
}

GuestForwards::~GuestForwards() {
  close();
}

std::uint32_t GuestForwards::dns_tcp_port() const {
  return first_port_ + static_cast<std::uint32_t>(hosts_.ports.size());
}

std::string GuestForwards::boot_lines() {
  std::string lines;
  for (const HostName& host : hosts_.names) {
    lines += fmt::format("host {} {}\n", host.name, host.address);
  }
  std::uint32_t vsock_port = first_port_;
  for (const HostPort& host : hosts_.ports) {
    lines += forward_line("tcp", host.address, host.port, vsock_port++);
  }
  if (dns_) {
    lines += fmt::format("nameserver {}\n", kResolver);
    if (const std::vector<std::string> search = dns_->search(); !search.empty()) {
      lines += fmt::format("search {}\n", fmt::join(search, " "));
    }
    lines += forward_line("tcp", kResolver, kDnsPort, dns_tcp_port());
    lines += forward_line("udp", kResolver, kDnsPort, dns_udp_port());
  }
  return lines;
}

std::vector<std::uint32_t> GuestForwards::host_ports() const {
  std::vector<std::uint32_t> ports;
  const std::uint32_t end = dns_ ? dns_udp_port() + 1 : dns_tcp_port();
  for (std::uint32_t port = first_port_; port != end; ++port) {
    ports.push_back(port);
  }
  return ports;
}

void GuestForwards::accept(std::uint32_t vsock_port, Fd connection) {
  // The loop reads and writes sockets in blocking mode.
  if (::fcntl(connection.get(), F_SETFL, 0) != 0 || vsock_port < first_port_) {
    return;
  }
  const std::uint32_t index = vsock_port - first_port_;
  if (index < hosts_.ports.size()) {
    const HostPort& host = hosts_.ports[index];
    // Cannot fail: no host has a port 0.
    connections_.add(std::move(connection), protocol::open_sandbox(host.socket),
                     *protocol::encode_connect_tcp(host.port));
  } else if (dns_ && vsock_port == dns_tcp_port()) {
    dns_->accept_tcp(std::move(connection));
  } else if (dns_ && vsock_port == dns_udp_port()) {
    dns_->accept_udp(std::move(connection));
  }
}

void GuestForwards::close() {
  connections_.close();
  if (dns_) {
    dns_->close();
  }
}

}  // namespace msb::launcher
