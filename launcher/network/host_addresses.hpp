// SPDX-License-Identifier: Apache-2.0
// The addresses of this host's network interfaces.
#pragma once

#include <span>
#include <string>
#include <vector>

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

}  // namespace msb::launcher
