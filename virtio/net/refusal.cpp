// SPDX-License-Identifier: Apache-2.0
#include "virtio/net/refusal.hpp"

#include <algorithm>

namespace msb::virtio {

namespace {

// RFC 1071, over pieces that but for the last have even sizes.
std::uint32_t add_words(std::span<const std::byte> bytes, std::uint32_t sum = 0) {
  std::size_t at = 0;
  for (; at + 1 < bytes.size(); at += 2) {
    sum += load16(bytes, at);
  }
  if (at < bytes.size()) {
    sum += std::uint32_t{load8(bytes, at)} << 8;
  }
  return sum;
}

std::uint16_t finish_sum(std::uint32_t sum) {
  while (sum > 0xffff) {
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<std::uint16_t>(~sum);
}

void put_address(std::span<std::byte> frame, std::size_t at, const IpAddress& address) {
  std::ranges::transform(std::span(address.bytes).first(address.bits() / 8),
                         frame.subspan(at).begin(),
                         [](std::uint8_t byte) { return std::byte{byte}; });
}

// A frame back to where `packet` came from, with room for `size` bytes of `protocol` at the end.
std::vector<std::byte> make_frame(const Packet& packet, std::uint8_t protocol, std::size_t size) {
  const bool six = packet.source.family == 6;
  const std::size_t at = kEthernetHeader;
  const std::size_t header = six ? kIpv6Header : kIpv4Header;
  std::vector<std::byte> frame(at + header + size);
  const auto put_mac = [&](std::size_t where, const MacAddress& mac) {
    std::ranges::transform(mac, frame.begin() + static_cast<std::ptrdiff_t>(where),
                           [](std::uint8_t byte) { return std::byte{byte}; });
  };
  put_mac(0, packet.source_mac);
  put_mac(6, packet.destination_mac);
  store16(frame, kEthernetType, six ? kEtherTypeIpv6 : kEtherTypeIpv4);
  if (six) {
    frame[at] = std::byte{0x60};
    store16(frame, at + 4, static_cast<std::uint32_t>(size));
    frame[at + 6] = std::byte{protocol};
    frame[at + 7] = std::byte{kDefaultHops};
    put_address(frame, at + 8, packet.destination);
    put_address(frame, at + 24, packet.source);
  } else {
    frame[at] = std::byte{0x45};
    store16(frame, at + 2, static_cast<std::uint32_t>(header + size));
    store16(frame, at + 6, 0x4000);  // not to be fragmented
    frame[at + 8] = std::byte{kDefaultHops};
    frame[at + 9] = std::byte{protocol};
    put_address(frame, at + 12, packet.destination);
    put_address(frame, at + 16, packet.source);
    store16(frame, at + 10, finish_sum(add_words(std::span(frame).subspan(at, header))));
  }
  return frame;
}

// RFC 9293 section 3.1, RFC 8200 section 8.1: the checksum with the pseudo-header.
void set_checksum(std::vector<std::byte>& frame, const Packet& packet, std::uint8_t protocol,
                  std::size_t size, std::size_t offset) {
  const std::size_t addresses = packet.source.family == 6 ? 32 : 8;
  const std::size_t end = frame.size() - size;
  std::uint32_t sum = add_words(std::span(frame).subspan(end - addresses));
  sum += static_cast<std::uint32_t>(size) + protocol;
  store16(frame, end + offset, finish_sum(sum));
}

std::vector<std::byte> make_reset(const Packet& packet, std::span<const std::byte> head) {
  if ((packet.tcp_flags & kTcpReset) != 0) {
    return {};
  }
  std::vector<std::byte> frame = make_frame(packet, kIpTcp, kTcpHeader);
  const std::size_t at = frame.size() - kTcpHeader;
  store16(frame, at, packet.destination_port);
  store16(frame, at + 2, packet.source_port);
  frame[at + 12] = std::byte{kTcpHeader / 4 << 4};
  if ((packet.tcp_flags & kTcpAck) != 0) {
    store32(frame, at + 4, load32(head, packet.transport + 8));
    frame[at + 13] = std::byte{kTcpReset};
  } else {
    const std::uint32_t length = static_cast<std::uint32_t>(packet.size - packet.payload) +
                                 ((packet.tcp_flags & kTcpSyn) != 0 ? 1U : 0U) +
                                 ((packet.tcp_flags & kTcpFin) != 0 ? 1U : 0U);
    store32(frame, at + 8, load32(head, packet.transport + 4) + length);
    frame[at + 13] = std::byte{kTcpReset | kTcpAck};
  }
  set_checksum(frame, packet, kIpTcp, kTcpHeader, kTcpChecksum);
  return frame;
}

std::vector<std::byte> make_unreachable(const Packet& packet, std::span<const std::byte> head) {
  const bool six = packet.source.family == 6;
  const bool question = packet.icmp_type == (six ? kIcmpv6Echo : kIcmpEcho);
  if (packet.has_icmp && !question) {
    return {};  // neither errors nor answers are answered
  }
  const auto original =
      head.subspan(packet.network, std::min(head.size(), packet.size) - packet.network);
  const std::size_t size = kIcmpHeader + original.size();
  const std::uint8_t protocol = six ? kIpIcmpv6 : kIpIcmp;
  std::vector<std::byte> frame = make_frame(packet, protocol, size);
  const std::size_t at = frame.size() - size;
  frame[at] = std::byte{six ? kIcmpv6Unreachable : kIcmpUnreachable};
  frame[at + 1] = std::byte{six ? kIcmpv6Prohibited : kIcmpProhibited};
  std::ranges::copy(original, frame.begin() + static_cast<std::ptrdiff_t>(at + kIcmpHeader));
  if (six) {
    set_checksum(frame, packet, protocol, size, 2);
  } else {
    store16(frame, at + 2, finish_sum(add_words(std::span(frame).subspan(at))));
  }
  return frame;
}

}  // namespace

std::vector<std::byte> make_refusal(const Packet& packet, std::span<const std::byte> head) {
  return packet.protocol == kIpTcp && packet.has_ports ? make_reset(packet, head)
                                                       : make_unreachable(packet, head);
}

}  // namespace msb::virtio
