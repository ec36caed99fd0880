// SPDX-License-Identifier: Apache-2.0
// What is known of a packet from its headers: Ethernet, ARP (RFC 826), IPv4 (RFC 791), IPv6 (RFC
// 8200), TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792, 4443). No I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/network_config.hpp"
#include "virtio/net/wire.hpp"

namespace msb::virtio {

struct Packet {
  enum class Kind : std::uint8_t { kArp, kIp, kOther };

  Kind kind = Kind::kOther;
  MacAddress destination_mac{};
  MacAddress source_mac{};

  // Of ARP and IP. ARP's are those of the protocol, IPv4 always.
  IpAddress source;
  IpAddress destination;
  MacAddress arp_sender{};

  // Of IP: behind all headers that an IP packet may have before its payload.
  std::uint8_t protocol = 0;
  std::size_t network = 0;    // where its header begins in the frame
  std::size_t transport = 0;  // where that of `protocol` begins
  std::size_t size = 0;       // of the frame, without what pads it
  bool fragment = false;
  bool first_fragment = false;
  bool last_fragment = false;
  std::uint32_t fragment_id = 0;
  std::size_t fragment_offset = 0;  // bytes into what was fragmented
  std::size_t fragmented = 0;       // where in the frame that begins

  // Of TCP and UDP, unless it is a fragment behind the first.
  bool has_ports = false;
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
  std::uint8_t tcp_flags = 0;
  std::size_t payload = 0;  // where that of TCP begins in the frame

  // Of ICMP and ICMPv6, likewise.
  bool has_icmp = false;
  std::uint8_t icmp_type = 0;
  std::uint16_t icmp_id = 0;  // of an echo
  IpAddress neighbor_target;  // of neighbour solicitations and advertisements
};

// `head` holds the frame's first bytes, all of them or at least kMaxHeaders; `size` is how many it
// has. Nothing for a frame that no receiver should take for a packet, or that receivers may read
// differently: lengths that do not fit, headers that do not lie in `head`, a first fragment without
// all of them, source routing, a jumbogram, more extension headers than anybody has use for.
inline constexpr std::size_t kMaxHeaders = 256;
std::optional<Packet> parse_packet(std::span<const std::byte> head, std::size_t size);

}  // namespace msb::virtio
