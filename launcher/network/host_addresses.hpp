// SPDX-License-Identifier: Apache-2.0
// The addresses of this host's network interfaces.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/network_config.hpp"
#include "base/result.hpp"

namespace msb::launcher {

struct InterfaceAddress {
  std::string interface;
  IpPrefix address;
  [[nodiscard]] bool loopback() const;
  [[nodiscard]] bool link_local() const;
};

Result<std::vector<InterfaceAddress>> interface_addresses();

// All but loopback's, those that are not private first: of more than kMaxHostAddresses the last are
// left out.
std::vector<IpAddress> own_addresses(std::span<const InterfaceAddress> addresses);

// Tells whenever they change. Used on the loop's thread, which must be drained after close().
class AddressWatch {
 public:
  using Changed = std::function<void(std::vector<IpAddress> own)>;
  explicit AddressWatch(AsyncIo& io);
  // Fails when the kernel cannot tell.
  Result<void> start(Changed changed);
  void close();

 private:
  void on_readable();
  void read_all();

  AsyncIo& io_;
  Fd netlink_;
  Changed changed_;
  std::vector<IpAddress> last_;
  Operation readable_;
  Operation settled_;  // changes come in bursts
};

}  // namespace msb::launcher
