// SPDX-License-Identifier: Apache-2.0
#include "virtio/net/packet.hpp"

#include <algorithm>

namespace msb::virtio {

namespace {

constexpr int kMaxExtensionHeaders = 8;

MacAddress mac_at(std::span<const std::byte> bytes, std::size_t at) {
  MacAddress mac;
  std::ranges::transform(bytes.subspan(at, mac.size()), mac.begin(),
                         [](std::byte byte) { return static_cast<std::uint8_t>(byte); });
  return mac;
}

IpAddress address_at(std::span<const std::byte> bytes, std::size_t at, std::uint32_t family) {
  IpAddress address{.family = family, .bytes = {}};
  std::ranges::transform(bytes.subspan(at, family == 4 ? 4 : 16), address.bytes.begin(),
                         [](std::byte byte) { return static_cast<std::uint8_t>(byte); });
  return address;
}

// Reads one header after the other. `head` ends with the packet or earlier: what pads a frame is
// behind it.
class Parser {
 public:
  Parser(std::span<const std::byte> head, std::size_t size) : head_(head), size_(size) {}

  std::optional<Packet> parse() {
    if (!has(0, kEthernetHeader)) {
      return std::nullopt;
    }
    packet_.destination_mac = mac_at(head_, 0);
    packet_.source_mac = mac_at(head_, 6);
    packet_.network = kEthernetHeader;
    packet_.size = size_;
    bool good = true;
    switch (load16(head_, kEthernetType)) {
      case kEtherTypeArp:
        good = parse_arp();
        break;
      case kEtherTypeIpv4:
        good = parse_ipv4();
        break;
      case kEtherTypeIpv6:
        good = parse_ipv6();
        break;
      default:
        break;
    }
    return good ? std::optional(packet_) : std::nullopt;
  }

 private:
  [[nodiscard]] bool has(std::size_t at, std::size_t bytes) const {
    return at <= head_.size() && bytes <= head_.size() - at;
  }

  // What follows the packet does not count.
  bool set_size(std::size_t size) {
    if (size > size_) {
      return false;
    }
    packet_.size = size;
    head_ = head_.first(std::min(head_.size(), size));
    return true;
  }

  bool parse_arp() {
    const std::size_t at = packet_.network;
    if (!has(at, kArpSize) || load16(head_, at) != 1 || load16(head_, at + 2) != kEtherTypeIpv4 ||
        load8(head_, at + 4) != 6 || load8(head_, at + 5) != 4) {
      return false;
    }
    packet_.kind = Packet::Kind::kArp;
    packet_.arp_sender = mac_at(head_, at + 8);
    packet_.source = address_at(head_, at + 14, 4);
    packet_.destination = address_at(head_, at + 24, 4);
    return true;
  }

  bool parse_ipv4() {
    const std::size_t at = packet_.network;
    if (!has(at, kIpv4Header) || load8(head_, at) >> 4 != 4) {
      return false;
    }
    const std::size_t header = std::size_t{4} * (load8(head_, at) & 0xf);
    const std::size_t total = load16(head_, at + 2);
    if (header < kIpv4Header || total < header || !set_size(at + total) || !has(at, header) ||
        !are_options_harmless(head_.subspan(at + kIpv4Header, header - kIpv4Header))) {
      return false;
    }
    packet_.kind = Packet::Kind::kIp;
    packet_.source = address_at(head_, at + 12, 4);
    packet_.destination = address_at(head_, at + 16, 4);
    packet_.protocol = load8(head_, at + 9);
    packet_.transport = at + header;
    const std::uint16_t fragment = load16(head_, at + 6);
    constexpr std::uint16_t kMore = 0x2000;
    constexpr std::uint16_t kOffset = 0x1fff;
    if ((fragment & (kMore | kOffset)) != 0) {
      packet_.fragment_id = load16(head_, at + 4);
      if (!set_fragment(std::size_t{8} * (fragment & kOffset), (fragment & kMore) != 0,
                        packet_.transport)) {
        return false;
      }
    }
    return parse_transport();
  }

  // Source routes make the destination another one (RFC 7126 says to drop such packets).
  static bool are_options_harmless(std::span<const std::byte> options) {
    std::size_t at = 0;
    while (at < options.size()) {
      const std::uint8_t kind = load8(options, at);
      if (kind == kIpv4OptionEnd) {
        return true;
      }
      if (kind == kIpv4OptionNothing) {
        ++at;
        continue;
      }
      const std::size_t length = at + 1 < options.size() ? load8(options, at + 1) : 0;
      if (kind == kIpv4OptionLooseRoute || kind == kIpv4OptionStrictRoute || length < 2 ||
          length > options.size() - at) {
        return false;
      }
      at += length;
    }
    return true;
  }

  bool parse_ipv6() {
    const std::size_t at = packet_.network;
    // A jumbogram (RFC 2675) has no length here.
    if (!has(at, kIpv6Header) || load8(head_, at) >> 4 != 6 ||
        !set_size(at + kIpv6Header + load16(head_, at + 4)) || load16(head_, at + 4) == 0) {
      return false;
    }
    packet_.kind = Packet::Kind::kIp;
    packet_.source = address_at(head_, at + 8, 6);
    packet_.destination = address_at(head_, at + 24, 6);
    return parse_extensions(load8(head_, at + 6), at + kIpv6Header) && parse_transport();
  }

  // RFC 8200 section 4, RFC 4302.
  bool parse_extensions(std::uint8_t next, std::size_t at) {
    for (int count = 0;; ++count) {
      std::size_t length = 0;
      switch (next) {
        case kIpHopByHop:
        case kIpDestinationOptions:
        case kIpRouting:
          if (!has(at, 8)) {
            return false;
          }
          // A route that is not at its end makes the destination another one.
          if (next == kIpRouting && load8(head_, at + 3) != 0) {
            return false;
          }
          length = std::size_t{8} * (load8(head_, at + 1) + 1U);
          break;
        case kIpAuthentication:
          if (!has(at, 8)) {
            return false;
          }
          length = std::size_t{4} * (load8(head_, at + 1) + 2U);
          break;
        case kIpFragment: {
          if (!has(at, 8) || packet_.fragment) {
            return false;
          }
          length = 8;
          const std::uint16_t fragment = load16(head_, at + 2);
          packet_.fragment_id = load32(head_, at + 4);
          if (!set_fragment(fragment & 0xfff8U, (fragment & 1) != 0, at + length)) {
            return false;
          }
          break;
        }
        default:
          packet_.protocol = next;
          packet_.transport = at;
          return true;
      }
      if (count == kMaxExtensionHeaders || !has(at, length)) {
        return false;
      }
      next = load8(head_, at);
      at += length;
      if (packet_.fragment && !packet_.first_fragment) {
        packet_.protocol = next;  // of the headers behind it nothing can be said
        packet_.transport = at;
        return true;
      }
    }
  }

  bool set_fragment(std::size_t offset, bool more, std::size_t begins) {
    packet_.fragment = true;
    packet_.first_fragment = offset == 0;
    packet_.last_fragment = !more;
    packet_.fragment_offset = offset;
    packet_.fragmented = begins;
    // Reassembled it has to fit into a packet (RFC 791: the Ping of Death does not).
    const std::size_t length = packet_.size - begins;
    return begins <= packet_.size && offset + length <= 65535 && (!more || length % 8 == 0) &&
           (length > 0);
  }

  // The first fragment has to have all headers (RFC 7112, RFC 1858).
  bool parse_transport() {
    if (packet_.fragment && !packet_.first_fragment) {
      return true;
    }
    const std::size_t at = packet_.transport;
    switch (packet_.protocol) {
      case kIpTcp: {
        if (!has(at, kTcpHeader)) {
          return false;
        }
        const std::size_t header = std::size_t{4} * (load8(head_, at + 12) >> 4);
        packet_.tcp_flags = load8(head_, at + 13);
        packet_.payload = at + header;
        set_ports();
        return header >= kTcpHeader && has(at, header);
      }
      case kIpUdp: {
        if (!has(at, kUdpHeader)) {
          return false;
        }
        const std::size_t length = load16(head_, at + 4);
        set_ports();
        return length >= kUdpHeader && (packet_.fragment || length <= packet_.size - at);
      }
      case kIpIcmp:
      case kIpIcmpv6:
        return parse_icmp();
      default:
        return true;
    }
  }

  void set_ports() {
    packet_.has_ports = true;
    packet_.source_port = load16(head_, packet_.transport);
    packet_.destination_port = load16(head_, packet_.transport + 2);
  }

  // Of the wrong family it is a protocol like any other.
  bool parse_icmp() {
    const std::size_t at = packet_.transport;
    const bool six = packet_.source.family == 6;
    if ((packet_.protocol == kIpIcmpv6) != six) {
      return true;
    }
    if (!has(at, kIcmpHeader)) {
      return false;
    }
    packet_.has_icmp = true;
    packet_.icmp_type = load8(head_, at);
    packet_.icmp_id = load16(head_, at + 4);
    if (six && (packet_.icmp_type == kIcmpv6NeighborSolicitation ||
                packet_.icmp_type == kIcmpv6NeighborAdvertisement)) {
      if (!has(at, 24) || packet_.fragment) {  // RFC 6980: neighbours do not talk in fragments
        return false;
      }
      packet_.neighbor_target = address_at(head_, at + 8, 6);
    }
    return true;
  }

  std::span<const std::byte> head_;
  std::size_t size_;
  Packet packet_;
};

}  // namespace

std::optional<Packet> parse_packet(std::span<const std::byte> head, std::size_t size) {
  return Parser(head, size).parse();
}

}  // namespace msb::virtio
