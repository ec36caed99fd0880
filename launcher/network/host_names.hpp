// SPDX-License-Identifier: Apache-2.0
// Other sandboxes under names of a guest's: the words of `msb-vmm run --host`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace msb::launcher {

// A name, and the address in 127.77.1.0/24 that it has in the guest.
struct HostName {
  std::string name;
  std::string address;
};

// A port of such an address, and where what connects to it is carried on to.
struct HostPort {
  std::string address;
  std::uint16_t port = 0;  // in both guests
  std::string socket;      // path of the other sandbox's Unix socket
};

struct HostNames {
  std::vector<HostName> names;
  std::vector<HostPort> ports;
};

inline constexpr std::size_t kMaxHostPorts = 64;

// Of words NAME=SOCKET:PORT. A name may come with several ports, and has one address for all of
// them. Fails when a word is none, when two are for one port of a name, and for more than
// kMaxHostPorts.
Result<HostNames> parse_host_names(std::span<const std::string> words);

}  // namespace msb::launcher
