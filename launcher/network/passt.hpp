// SPDX-License-Identifier: Apache-2.0
// passt(1): a network for a guest out of ordinary sockets of this host, without any privilege.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/fd.hpp"
#include "base/network_config.hpp"
#include "base/result.hpp"

namespace msb::launcher {

struct PasstOptions {
  std::optional<IpAddress> ipv4;  // the guest's address, and its gateway's
  std::optional<IpAddress> ipv4_gateway;
  std::optional<IpAddress> ipv6;
  std::optional<IpAddress> ipv6_gateway;
  std::string interface;  // whose link-local address it may use for IPv6; "lo" without IPv6
  std::string mac;        // of the gateway
};

// Owns the process: it does not outlive this object, and ends by itself when the other end of its
// socket is closed, also when this process is killed.
class Passt {
 public:
  // Started and not waited for: what goes into `socket` before it is ready is not lost.
  static Result<Passt> start(const PasstOptions& options);
  Passt(Passt&& other) noexcept;
  Passt& operator=(Passt&& other) noexcept;
  ~Passt();

  // A pidfd: readable once it has ended.
  [[nodiscard]] int process() const { return process_.get(); }
  // The guest's end, a stream of frames with their lengths; to be taken once.
  Fd take_socket() { return std::move(socket_); }
  // Ends it, without waiting.
  void kill() const;
  // Ends it if it still runs, and says how it ended and what it said last: "signal 9".
  std::string end();

 private:
  Passt() = default;
  Fd socket_;
  Fd process_;
  Fd words_;  // the reading end of its standard error
  pid_t pid_ = -1;
};

}  // namespace msb::launcher
