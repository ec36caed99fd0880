// SPDX-License-Identifier: Apache-2.0
// Ports of a guest on this host: the words of `msb-vmm run --publish` and of a Sandboxfile's ports.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/socket_address.hpp"

namespace msb {

enum class Transport { kTcp, kUdp };

// "tcp" or "udp".
std::string_view transport_word(Transport transport);

// What the user asked for: [ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp], with IPv6 addresses in
// brackets, or PORT[/tcp|/udp] for the same port on both sides.
struct PublishWords {
  Transport transport = Transport::kTcp;
  SocketAddress host;  // 127.0.0.1 unless another is named; port 0: any that is free
  std::uint16_t guest_port = 0;
};

inline constexpr std::size_t kMaxPublished = 64;

// `option`: what errors call it.
Result<PublishWords> parse_publish(std::string_view word, std::string_view option = "--publish");

// Those of several words, of which no two are for one port of one address, and which are no more
// than kMaxPublished.
Result<std::vector<PublishWords>> parse_publish(std::span<const std::string> words);

}  // namespace msb
