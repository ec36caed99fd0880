// SPDX-License-Identifier: Apache-2.0
#include "virtio/net/frame_filter.hpp"

#include <algorithm>
#include <array>

#include "virtio/net/refusal.hpp"

namespace msb::virtio {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;  // nanoseconds
constexpr std::size_t kMaxFlows = 16384;
constexpr std::size_t kMaxNewConnections = 1024;
// Longer than connections usually stay silent (RFC 5382 asks two hours and four minutes of a NAT,
// and four minutes of one that is being made; RFC 4787 asks two minutes for UDP).
constexpr std::uint64_t kConnectionLifetime = 7500 * kSecond;
constexpr std::uint64_t kNewLifetime = 240 * kSecond;
constexpr std::uint64_t kDatagramLifetime = 180 * kSecond;
constexpr std::size_t kMaxFragmented = 256;
constexpr std::uint64_t kFragmentedLifetime = 30 * kSecond;  // as Linux reassembles

constexpr std::uint16_t kMinSegment = 48;  // bytes; Linux has no smaller ones

constexpr IpPrefix kLinkLocal{{6, {0xfe, 0x80}}, 10};
constexpr IpPrefix kLinkMulticast{{6, {0xff, 0x02}}, 16};
constexpr IpPrefix kMulticast4{{4, {224}}, 4};
constexpr IpPrefix kMulticast6{{6, {0xff}}, 8};
constexpr IpPrefix kIgmpReports{{4, {224, 0, 0, 0}}, 24};
constexpr IpPrefix kBroadcast{{4, {255, 255, 255, 255}}, 32};

// RFC 6890: this host, IPv4 in the form that programs see (RFC 4291 section 2.5.5), and this host
// behind a translator (RFC 6052).
constexpr std::array<IpPrefix, 6> kNowhere{
    {{{4, {0}}, 8},
     {{4, {127}}, 8},
     {{6, {}}, 96},
     {{6, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}}, 96},
     {{6, {0, 0x64, 0xff, 0x9b}}, 104},
     {{6, {0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 127}}, 104}}};

bool is_unspecified(const IpAddress& address) {
  return std::ranges::all_of(address.bytes, [](std::uint8_t byte) { return byte == 0; });
}

bool is_multicast(const IpAddress& address) {
  return kMulticast4.contains(address) || kMulticast6.contains(address) ||
         kBroadcast.contains(address);
}

// The link-local address that the init gives the card (RFC 4291 appendix A).
IpPrefix link_local_of(const MacAddress& mac) {
  IpPrefix own{{6, {0xfe, 0x80}}, 64};
  auto& bytes = own.address.bytes;
  bytes[8] = mac[0] ^ 2;
  bytes[9] = mac[1];
  bytes[10] = mac[2];
  bytes[11] = 0xff;
  bytes[12] = 0xfe;
  std::copy_n(mac.begin() + 3, 3, bytes.begin() + 13);
  return own;
}

std::vector<IpPrefix> with_link_local(std::vector<IpPrefix> addresses, const MacAddress& mac) {
  if (std::ranges::any_of(addresses, [](const IpPrefix& own) { return own.address.family == 6; })) {
    addresses.push_back(link_local_of(mac));
  }
  return addresses;
}

}  // namespace

FrameFilter::FrameFilter(Options options)
    : mac_(options.mac),
      addresses_(with_link_local(std::move(options.addresses), options.mac)),
      proxied_(options.proxied),
      policy_(std::move(options.rules), std::move(options.host)),
      closed_(!policy_.allows_anything()),
      new_connections_(kMaxNewConnections, kNewLifetime),
      connections_(kMaxFlows, kConnectionLifetime),
      datagrams_(kMaxFlows, kDatagramLifetime),
      questions_(kMaxFlows, kDatagramLifetime),
      fragments_(kMaxFragmented, kFragmentedLifetime) {}

bool FrameFilter::is_own(const IpAddress& address) const {
  return std::ranges::any_of(addresses_,
                             [&](const IpPrefix& own) { return own.address == address; });
}

bool FrameFilter::is_on_link(const IpAddress& address) const {
  return std::ranges::any_of(addresses_,
                             [&](const IpPrefix& own) { return own.contains(address); });
}

FrameFilter::Verdict FrameFilter::check_sent(std::span<const std::byte> head, std::size_t size,
                                             const NetHeader& header, std::uint64_t now) {
  const std::optional<Packet> packet = parse_packet(head, size);
  if (!packet || !is_offload_sane(header, packet)) {
    return Verdict::kMalformed;
  }
  if (packet->source_mac != mac_) {
    return deny(NetworkDenial::Reason::kSource, *packet);
  }
  switch (packet->kind) {
    case Packet::Kind::kArp:
      return check_arp(*packet);
    case Packet::Kind::kIp:
      return check_ip(*packet, now);
    case Packet::Kind::kOther:
      break;
  }
  return Verdict::kIgnore;
}

// Asking for others, answering for itself, and probes, which name no sender (RFC 5227).
FrameFilter::Verdict FrameFilter::check_arp(const Packet& packet) const {
  const bool own =
      packet.arp_sender == mac_ && (is_own(packet.source) || is_unspecified(packet.source));
  return own && !closed_ ? Verdict::kPass : Verdict::kIgnore;
}

// What a host says to its own link so that it works at all: neighbour discovery and multicast
// listening. It is no way out: beyond the link nobody takes it, and it goes nowhere else.
std::optional<FrameFilter::Verdict> FrameFilter::check_link_talk(const Packet& packet) const {
  const bool own = is_own(packet.source) || is_unspecified(packet.source);
  const bool stays = kLinkMulticast.contains(packet.destination) ||
                     kLinkLocal.contains(packet.destination) || is_on_link(packet.destination);
  if (packet.protocol == kIpIgmp && packet.source.family == 4) {
    return own && kIgmpReports.contains(packet.destination) && !closed_ ? Verdict::kPass
                                                                        : Verdict::kIgnore;
  }
  if (!packet.has_icmp || packet.source.family != 6) {
    return std::nullopt;
  }
  switch (packet.icmp_type) {
    case kIcmpv6ListenerReport:
    case kIcmpv6ListenerDone:
    case kIcmpv6ListenerReport2:
    case kIcmpv6RouterSolicitation:
    case kIcmpv6NeighborSolicitation:
      return own && stays && !closed_ ? Verdict::kPass : Verdict::kIgnore;
    case kIcmpv6NeighborAdvertisement:
      return own && stays && !closed_ && is_own(packet.neighbor_target) ? Verdict::kPass
                                                                        : Verdict::kIgnore;
    case kIcmpv6ListenerQuery:
    case kIcmpv6RouterAdvertisement:  // the guest is no router
    case kIcmpv6Redirect:
      return Verdict::kIgnore;
    default:
      return std::nullopt;
  }
}

// What a proxy takes for a packet as it is: it looks for ports where others have options, and takes
// protocols for extension headers.
bool FrameFilter::is_plain(const Packet& packet) {
  const bool six = packet.source.family == 6;
  const bool known = packet.protocol == kIpTcp || packet.protocol == kIpUdp ||
                     packet.protocol == (six ? kIpIcmpv6 : kIpIcmp);
  return known && !packet.fragment &&
         packet.transport == packet.network + (six ? kIpv6Header : kIpv4Header);
}

FrameFilter::Verdict FrameFilter::check_ip(const Packet& packet, std::uint64_t now) {
  if (proxied_ && !is_plain(packet)) {
    // Hosts report the multicast groups that they listen to like this, by themselves.
    return check_link_talk(packet) ? Verdict::kIgnore
                                   : deny(NetworkDenial::Reason::kUnclear, packet);
  }
  if (packet.fragment && !packet.first_fragment) {
    return check_later_fragment(packet, now);
  }
  if (const auto verdict = check_link_talk(packet)) {
    return *verdict;
  }
  if (!is_own(packet.source)) {
    return deny(NetworkDenial::Reason::kSource, packet);
  }
  if (std::ranges::any_of(
          kNowhere, [&](const IpPrefix& prefix) { return prefix.contains(packet.destination); })) {
    return deny(NetworkDenial::Reason::kNowhere, packet);
  }
  if (!answers(packet, now)) {
    const Policy::Verdict verdict =
        policy_.decide(packet.destination, packet.protocol,
                       packet.has_ports ? std::optional(packet.destination_port) : std::nullopt);
    if (!verdict.allowed) {
      return deny(NetworkDenial::Reason::kRule, packet, verdict.rule);
    }
    if (const auto flow = flow_of(packet, true); proxied_ && flow && packet.protocol != kIpTcp) {
      questions_.put(*flow, true, now);
    }
  }
  if (packet.fragment && !packet.last_fragment) {
    const std::size_t headers =
        (packet.protocol == kIpTcp ? packet.payload : packet.transport + kUdpHeader) -
        packet.fragmented;
    fragments_.put({packet.source, packet.destination, packet.fragment_id,
                    packet.source.family == 4 ? packet.protocol : std::uint8_t{0}},
                   headers, now);
  }
  return Verdict::kPass;
}

// Who reassembles puts it behind the first fragment, which was let out; in front of its end it
// could change what was checked there.
FrameFilter::Verdict FrameFilter::check_later_fragment(const Packet& packet, std::uint64_t now) {
  const std::size_t* const headers =
      fragments_.find({packet.source, packet.destination, packet.fragment_id,
                       packet.source.family == 4 ? packet.protocol : std::uint8_t{0}},
                      now);
  if (!is_own(packet.source) || headers == nullptr || packet.fragment_offset < *headers) {
    return deny(NetworkDenial::Reason::kFragment, packet);
  }
  return Verdict::kPass;
}

FrameFilter::Verdict FrameFilter::deny(NetworkDenial::Reason reason, const Packet& packet,
                                       std::optional<std::uint32_t> rule) {
  if (packet.kind != Packet::Kind::kIp) {
    return Verdict::kIgnore;
  }
  denial_ = {.reason = reason,
             .rule = rule,
             .protocol = packet.protocol,
             .destination = packet.destination,
             .source_port = packet.source_port,
             .destination_port = packet.destination_port};
  denied_ = packet;
  return Verdict::kDeny;
}

std::vector<std::byte> FrameFilter::refusal(std::span<const std::byte> head) const {
  if (denial_.reason == NetworkDenial::Reason::kSource ||
      denial_.reason == NetworkDenial::Reason::kFragment ||
      (denied_.fragment && !denied_.first_fragment) || is_multicast(denied_.destination)) {
    return {};
  }
  return make_refusal(denied_, head);
}

// Whether the guest answers what came from outside. Datagrams are answered for as long as there
// come more, whatever the guest sends.
bool FrameFilter::answers(const Packet& packet, std::uint64_t now) {
  const auto flow = flow_of(packet, true);
  if (!flow) {
    return false;
  }
  if (packet.protocol == kIpTcp) {
    return connections_.find(*flow, now) != nullptr || new_connections_.find(*flow, now) != nullptr;
  }
  const bool reply =
      packet.has_ports ||
      packet.icmp_type == (packet.source.family == 6 ? kIcmpv6EchoReply : kIcmpEchoReply);
  return reply && datagrams_.look(*flow, now) != nullptr;
}

bool FrameFilter::check_received(std::span<const std::byte> head, std::size_t size,
                                 std::uint64_t now) {
  if (closed_) {
    return false;
  }
  const std::optional<Packet> packet = parse_packet(head, size);
  if (!packet || packet->kind != Packet::Kind::kIp) {
    return true;  // the guest's to judge
  }
  if (!proxied_) {
    remember_received(*packet, now);
    return true;
  }
  // A proxy hands on whatever is sent to a port from which the guest once sent something.
  const auto flow = flow_of(*packet, false);
  return packet->protocol != kIpUdp || (flow && questions_.find(*flow, now) != nullptr);
}

void FrameFilter::remember_received(const Packet& packet, std::uint64_t now) {
  const auto flow = flow_of(packet, false);
  if (!flow || !is_own(packet.destination)) {
    return;
  }
  if (packet.protocol != kIpTcp) {
    datagrams_.put(*flow, true, now);
  } else if ((packet.tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn) {
    if (connections_.find(*flow, now) == nullptr) {
      new_connections_.put(*flow, true, now);
    }
  } else if (new_connections_.find(*flow, now) != nullptr) {
    new_connections_.remove(*flow);
    connections_.put(*flow, true, now);
  } else {
    connections_.find(*flow, now);  // it is in use
  }
}

std::optional<FrameFilter::Flow> FrameFilter::flow_of(const Packet& packet, bool sent) {
  const IpAddress& other = sent ? packet.destination : packet.source;
  if (packet.has_ports) {
    return sent ? Flow{packet.protocol, other, packet.destination_port, packet.source_port}
                : Flow{packet.protocol, other, packet.source_port, packet.destination_port};
  }
  // An echo, and its reply, of which the other way's belongs to the same.
  const bool six = packet.source.family == 6;
  const bool echo = packet.icmp_type == (six ? kIcmpv6Echo : kIcmpEcho);
  const bool reply = packet.icmp_type == (six ? kIcmpv6EchoReply : kIcmpEchoReply);
  if (packet.has_icmp && (sent ? echo || reply : echo)) {
    return Flow{packet.protocol, other, packet.icmp_id, packet.icmp_id};
  }
  return std::nullopt;
}

bool is_offload_sane(const NetHeader& header, const std::optional<Packet>& packet) {
  const std::uint8_t gso = header.gso_type & ~kNetGsoEcn;
  if ((header.flags & ~kNetHeaderNeedsChecksum) != 0) {
    return false;
  }
  if ((header.flags & kNetHeaderNeedsChecksum) == 0) {
    return header.gso_type == kNetGsoNone;
  }
  if (!packet || packet->kind != Packet::Kind::kIp || packet->fragment || !packet->has_ports ||
      header.checksum_start != packet->transport ||
      header.checksum_offset != (packet->protocol == kIpTcp ? kTcpChecksum : kUdpChecksum)) {
    return false;
  }
  if (gso == kNetGsoNone) {
    return header.gso_type == kNetGsoNone;
  }
  return gso == (packet->source.family == 4 ? kNetGsoTcp4 : kNetGsoTcp6) &&
         packet->protocol == kIpTcp && header.gso_size >= kMinSegment;
}

}  // namespace msb::virtio
