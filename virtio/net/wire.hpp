// SPDX-License-Identifier: Apache-2.0
// Constants of the protocols that a network card carries, and their big-endian numbers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace msb::virtio {

using MacAddress = std::array<std::uint8_t, 6>;

// IEEE 802.3
inline constexpr std::size_t kEthernetHeader = 14;  // destination, source, type
inline constexpr std::size_t kEthernetType = 12;
inline constexpr std::uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr std::uint16_t kEtherTypeArp = 0x0806;
inline constexpr std::uint16_t kEtherTypeIpv6 = 0x86dd;

// RFC 826, of IPv4 on Ethernet
inline constexpr std::size_t kArpSize = 28;

// RFC 791, RFC 8200
inline constexpr std::size_t kIpv4Header = 20;  // without options
inline constexpr std::size_t kIpv6Header = 40;
inline constexpr std::uint8_t kIpv4OptionEnd = 0;
inline constexpr std::uint8_t kIpv4OptionNothing = 1;
inline constexpr std::uint8_t kIpv4OptionLooseRoute = 131;
inline constexpr std::uint8_t kIpv4OptionStrictRoute = 137;
inline constexpr std::uint8_t kDefaultHops = 64;

// IANA's protocol numbers
inline constexpr std::uint8_t kIpHopByHop = 0;
inline constexpr std::uint8_t kIpIcmp = 1;
inline constexpr std::uint8_t kIpIgmp = 2;
inline constexpr std::uint8_t kIpTcp = 6;
inline constexpr std::uint8_t kIpUdp = 17;
inline constexpr std::uint8_t kIpRouting = 43;
inline constexpr std::uint8_t kIpFragment = 44;
inline constexpr std::uint8_t kIpAuthentication = 51;
inline constexpr std::uint8_t kIpIcmpv6 = 58;
inline constexpr std::uint8_t kIpDestinationOptions = 60;

// RFC 9293, RFC 768
inline constexpr std::size_t kTcpHeader = 20;  // without options
inline constexpr std::size_t kTcpChecksum = 16;
inline constexpr std::uint8_t kTcpFin = 1;
inline constexpr std::uint8_t kTcpSyn = 2;
inline constexpr std::uint8_t kTcpReset = 4;
inline constexpr std::uint8_t kTcpAck = 16;
inline constexpr std::size_t kUdpHeader = 8;
inline constexpr std::size_t kUdpChecksum = 6;

// RFC 792, RFC 4443, RFC 4861, RFC 2710, RFC 3810
inline constexpr std::size_t kIcmpHeader = 8;
inline constexpr std::uint8_t kIcmpEchoReply = 0;
inline constexpr std::uint8_t kIcmpUnreachable = 3;
inline constexpr std::uint8_t kIcmpEcho = 8;
inline constexpr std::uint8_t kIcmpProhibited = 13;  // code of unreachable: by an administrator
inline constexpr std::uint8_t kIcmpv6Unreachable = 1;
inline constexpr std::uint8_t kIcmpv6Prohibited = 1;          // its code
inline constexpr std::uint8_t kIcmpv6FirstInformation = 128;  // below: errors
inline constexpr std::uint8_t kIcmpv6Echo = 128;
inline constexpr std::uint8_t kIcmpv6EchoReply = 129;
inline constexpr std::uint8_t kIcmpv6ListenerQuery = 130;
inline constexpr std::uint8_t kIcmpv6ListenerReport = 131;
inline constexpr std::uint8_t kIcmpv6ListenerDone = 132;
inline constexpr std::uint8_t kIcmpv6RouterSolicitation = 133;
inline constexpr std::uint8_t kIcmpv6RouterAdvertisement = 134;
inline constexpr std::uint8_t kIcmpv6NeighborSolicitation = 135;
inline constexpr std::uint8_t kIcmpv6NeighborAdvertisement = 136;
inline constexpr std::uint8_t kIcmpv6Redirect = 137;
inline constexpr std::uint8_t kIcmpv6ListenerReport2 = 143;

inline std::uint8_t load8(std::span<const std::byte> bytes, std::size_t at) {
  return static_cast<std::uint8_t>(bytes[at]);
}
inline std::uint16_t load16(std::span<const std::byte> bytes, std::size_t at) {
  return static_cast<std::uint16_t>(load8(bytes, at) << 8 | load8(bytes, at + 1));
}
inline std::uint32_t load32(std::span<const std::byte> bytes, std::size_t at) {
  return std::uint32_t{load16(bytes, at)} << 16 | load16(bytes, at + 2);
}
inline void store16(std::span<std::byte> bytes, std::size_t at, std::uint32_t value) {
  bytes[at] = static_cast<std::byte>(value >> 8);
  bytes[at + 1] = static_cast<std::byte>(value);
}
inline void store32(std::span<std::byte> bytes, std::size_t at, std::uint32_t value) {
  store16(bytes, at, value >> 16);
  store16(bytes, at + 2, value);
}

}  // namespace msb::virtio
