// SPDX-License-Identifier: Apache-2.0
// Frames for tests, built field by field.
#pragma once

#include <arpa/inet.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/network_config.hpp"
#include "virtio/net/wire.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio::testing {

using Frame = std::vector<std::byte>;

inline constexpr MacAddress kGuestMac{2, 0, 0, 0, 0, 1};
inline constexpr MacAddress kGatewayMac{2, 0, 0, 0, 0, 2};

inline IpAddress ip(std::string_view text) {
  IpAddress address;
  address.family = text.find(':') == std::string_view::npos ? 4 : 6;
  require(::inet_pton(address.family == 4 ? AF_INET : AF_INET6, std::string(text).c_str(),
                      address.bytes.data()) == 1,
          "a test names an IP address");
  return address;
}

inline IpPrefix prefix(std::string_view address, std::uint32_t length) {
  return {ip(address), length};
}

inline void append(Frame& frame, std::span<const std::byte> bytes) {
  frame.insert(frame.end(), bytes.begin(), bytes.end());
}
inline void append8(Frame& frame, std::uint32_t value) {
  frame.push_back(static_cast<std::byte>(value));
}
inline void append16(Frame& frame, std::uint32_t value) {
  append8(frame, value >> 8);
  append8(frame, value);
}
inline void append32(Frame& frame, std::uint32_t value) {
  append16(frame, value >> 16);
  append16(frame, value);
}
inline void append(Frame& frame, const IpAddress& address) {
  append(frame, std::as_bytes(std::span(address.bytes).first(address.bits() / 8)));
}
inline void append(Frame& frame, const MacAddress& mac) {
  append(frame, std::as_bytes(std::span(mac)));
}
inline Frame operator+(Frame first, const Frame& second) {
  append(first, second);
  return first;
}

inline Frame bytes(std::size_t count, std::uint8_t value = 0x55) {
  return Frame(count, std::byte{value});
}

inline Frame ethernet(std::uint16_t type, const Frame& payload,
                      const MacAddress& source = kGuestMac,
                      const MacAddress& destination = kGatewayMac) {
  Frame frame;
  append(frame, destination);
  append(frame, source);
  append16(frame, type);
  return frame + payload;
}

struct Ipv4Fields {
  std::string_view source = "10.0.2.15";
  std::string_view destination;
  std::uint8_t protocol = kIpTcp;
  Frame options = {};               // a multiple of 4 bytes
  std::uint16_t fragment = 0x4000;  // flags and offset in units of 8 bytes
  std::uint16_t id = 1;
  int total = -1;  // the length that it claims; -1: the right one
};

inline Frame ipv4(const Ipv4Fields& fields, const Frame& payload) {
  const std::size_t header = kIpv4Header + fields.options.size();
  Frame packet;
  append8(packet, 0x40 | static_cast<std::uint32_t>(header / 4));
  append8(packet, 0);
  append16(packet, fields.total >= 0 ? static_cast<std::uint32_t>(fields.total)
                                     : static_cast<std::uint32_t>(header + payload.size()));
  append16(packet, fields.id);
  append16(packet, fields.fragment);
  append8(packet, 64);
  append8(packet, fields.protocol);
  append16(packet, 0);
  append(packet, ip(fields.source));
  append(packet, ip(fields.destination));
  append(packet, fields.options);
  return packet + payload;
}

inline Frame ipv6(std::string_view source, std::string_view destination, std::uint8_t next,
                  const Frame& payload) {
  Frame packet;
  append32(packet, 0x60000000);
  append16(packet, static_cast<std::uint32_t>(payload.size()));
  append8(packet, next);
  append8(packet, 255);
  append(packet, ip(source));
  append(packet, ip(destination));
  return packet + payload;
}

inline Frame tcp(std::uint16_t source, std::uint16_t destination, std::uint8_t flags,
                 std::uint32_t sequence = 1000, std::uint32_t acknowledged = 0) {
  Frame header;
  append16(header, source);
  append16(header, destination);
  append32(header, sequence);
  append32(header, acknowledged);
  append8(header, 5 << 4);
  append8(header, flags);
  append16(header, 65535);
  append32(header, 0);
  return header;
}

inline Frame udp(std::uint16_t source, std::uint16_t destination, const Frame& payload = {}) {
  Frame header;
  append16(header, source);
  append16(header, destination);
  append16(header, static_cast<std::uint32_t>(kUdpHeader + payload.size()));
  append16(header, 0);
  return header + payload;
}

inline Frame icmp(std::uint8_t type, std::uint16_t id = 7) {
  Frame message;
  append8(message, type);
  append8(message, 0);
  append16(message, 0);
  append16(message, id);
  append16(message, 1);
  return message;
}

// Of IPv6: neighbour solicitations and advertisements.
inline Frame neighbor(std::uint8_t type, std::string_view target) {
  Frame message;
  append8(message, type);
  append8(message, 0);
  append16(message, 0);
  append32(message, 0);
  append(message, ip(target));
  return message;
}

inline Frame arp(std::uint16_t operation, const MacAddress& sender, std::string_view sender_address,
                 std::string_view target) {
  Frame message;
  append16(message, 1);
  append16(message, kEtherTypeIpv4);
  append8(message, 6);
  append8(message, 4);
  append16(message, operation);
  append(message, sender);
  append(message, ip(sender_address));
  append(message, MacAddress{});
  append(message, ip(target));
  return message;
}

// The Internet checksum (RFC 1071) over `data`, its own field included: 0 where it is right.
inline std::uint16_t internet_sum(std::span<const std::byte> data, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i < data.size(); ++i) {
    sum += std::uint32_t{load8(data, i)} << (i % 2 == 0 ? 8 : 0);
  }
  while (sum > 0xffff) {
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<std::uint16_t>(~sum);
}

}  // namespace msb::virtio::testing
