// SPDX-License-Identifier: Apache-2.0
// What a guest reaches through its launcher without a network card: this host's resolvers, and
// ports of other sandboxes by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "launcher/network/dns_forward.hpp"
#include "launcher/network/host_names.hpp"
#include "launcher/network/tunnel_relays.hpp"
#include "protocol/msb_exec.h"

namespace msb::launcher {

// The boot file (msb_boot.h) has the guest connect to vsock ports of the host, and the launcher
// gives those connections to accept(). Used on the loop's thread, which must be drained after
// close().
class GuestForwards {
 public:
  struct Options {
    HostNames hosts;
    bool dns = false;
    std::string resolv_conf = "/etc/resolv.conf";
    DnsForward::Limits dns_limits;
    std::size_t connections = 256;  // to other sandboxes, beyond which more are closed
    std::uint32_t first_port = MSB_PORT_FORWARD;
  };

  GuestForwards(AsyncIo& io, Options options);
  GuestForwards(const GuestForwards&) = delete;
  GuestForwards& operator=(const GuestForwards&) = delete;
  ~GuestForwards();

  // Lines for the boot file, each with its newline. The search domains are this host's of now.
  [[nodiscard]] std::string boot_lines();
  // The host's vsock ports that the guest is to be able to connect to.
  [[nodiscard]] std::vector<std::uint32_t> host_ports() const;
  // Takes the stream socket of a connection from the guest to one of them. It is closed when it
  // cannot be carried on, and for any other port.
  void accept(std::uint32_t vsock_port, Fd connection);
  void close();

 private:
  [[nodiscard]] std::uint32_t dns_tcp_port() const;
  [[nodiscard]] std::uint32_t dns_udp_port() const { return dns_tcp_port() + 1; }

  const HostNames hosts_;
  const std::uint32_t first_port_;  // the hosts' ports in their order, then those of DNS
  TunnelRelays connections_;
  std::optional<DnsForward> dns_;
};

}  // namespace msb::launcher
