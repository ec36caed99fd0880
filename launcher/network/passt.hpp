// SPDX-License-Identifier: Apache-2.0
// passt(1): a network for a guest out of ordinary sockets of this host, without any privilege.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "base/fd.hpp"
#include "base/network_config.hpp"
#include "base/result.hpp"
#include "launcher/child_process.hpp"

namespace msb::launcher {

struct PasstOptions {
  std::optional<IpAddress> ipv4;  // the guest's address, and its gateway's
  std::optional<IpAddress> ipv4_gateway;
  std::optional<IpAddress> ipv6;
  std::optional<IpAddress> ipv6_gateway;
  std::string interface;  // whose link-local address it may use for IPv6; "lo" without IPv6
  std::string mac;        // of the gateway
};

// Owns the process, which also ends by itself when the other end of its socket is closed: when the
// machine ends, however this process does.
class Passt {
 public:
  // Started and not waited for: what goes into the socket before it is ready is not lost.
  static Result<Passt> start(const PasstOptions& options);

  // A pidfd: readable once it has ended.
  [[nodiscard]] int process() const { return child_.process(); }
  // The guest's end, a stream of frames with their lengths; to be taken once.
  Fd take_socket() { return std::move(socket_); }
  // Ends it, without waiting.
  void kill() const { child_.kill(); }
  // Ends it if it still runs, and says how it ended and what it said first: "signal 9".
  std::string end();

 private:
  Passt(ChildProcess child, Fd socket, Fd words)
      : child_(std::move(child)), socket_(std::move(socket)), words_(std::move(words)) {}
  ChildProcess child_;
  Fd socket_;
  Fd words_;  // the reading end of its standard error
};

}  // namespace msb::launcher
