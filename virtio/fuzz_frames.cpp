// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: what a guest's frames may do, under any policy and whatever came from outside.
// The input is rules, and then frames in both directions and time that passes. What is let out is
// read once more here, by a reader that knows the plainest packets only, and judged by the rules
// one by one (hostile-input.md 32). Seeds: tests/corpus/net-frames.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "virtio/net/frame_filter.hpp"
#include "virtio/net/recent.hpp"
#include "virtio/testing/frames.hpp"
#include "virtio/testing/fuzz_input.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio {
namespace {

using namespace testing;
using Verdict = FrameFilter::Verdict;

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kConnectionLifetime = 7500 * kSecond;
constexpr std::uint64_t kNewLifetime = 240 * kSecond;
constexpr std::uint64_t kDatagramLifetime = 180 * kSecond;  // frame_filter.cpp's
constexpr std::size_t kMostFrame = 2048;                    // of frames that are bytes of the input
constexpr std::size_t kMostRefusal = kEthernetHeader + kIpv6Header + kIcmpHeader + kMaxHeaders;

// The guest's own, and others that rules and frames have in common.
const std::array<IpAddress, 3>& own_addresses() {
  static const std::array<IpAddress, 3> all{ip("10.0.2.15"), ip("fd00::15"), ip("fe80::ff:fe00:1")};
  return all;
}
const std::array<IpAddress, 8>& known_addresses(std::uint32_t family) {
  static const std::array<IpAddress, 8> four{
      ip("10.0.2.2"),  ip("192.0.2.9"), ip("127.0.0.1"),       ip("0.0.0.0"),
      ip("224.0.0.1"), ip("10.0.2.15"), ip("255.255.255.255"), ip("192.0.2.200")};
  static const std::array<IpAddress, 8> six{
      ip("fe80::2"),           ip("2001:db8::1"),     ip("::1"), ip("::ffff:192.0.2.9"),
      ip("64:ff9b::c000:209"), ip("64:ff9b::7f00:1"), ip("::"),  ip("ff02::1")};
  return family == 4 ? four : six;
}

IpAddress take_address(FuzzInput& input, std::uint32_t family) {
  const std::uint8_t choice = input.byte();
  if (choice < 0xe0) {
    return known_addresses(family)[choice % 8];
  }
  IpAddress address{family, {}};
  const auto bytes = input.take_bytes(address.bits() / 8);
  std::ranges::transform(bytes, address.bytes.begin(),
                         [](std::byte byte) { return static_cast<std::uint8_t>(byte); });
  return address;
}

// Whether it is for a proxy, and rules: what each does and for which protocols and family, where
// to, of how many bits, and the ports.
FrameFilter::Options take_options(FuzzInput& input) {
  const std::size_t first = input.below(18);
  std::vector<NetworkRule> rules(first % 9);
  for (NetworkRule& rule : rules) {
    const std::uint8_t what = input.byte();
    rule.allow = (what & 1) != 0;
    constexpr std::array<std::uint32_t, 4> kProtocols{NetworkRule::kAnyProtocol, kIpTcp, kIpUdp,
                                                      kIpIcmpv6};
    rule.protocol = kProtocols[what >> 1 & 3];
    const std::uint32_t family = (what & 8) != 0 ? 6 : 4;
    rule.destination.address = take_address(input, family);
    rule.destination.length =
        static_cast<std::uint32_t>(input.below(rule.destination.address.bits() + 1));
    if ((what & 16) != 0) {
      rule.first_port = input.take<std::uint16_t>();
      rule.last_port = std::max<std::uint32_t>(rule.first_port, input.take<std::uint16_t>());
    }
  }
  return {.mac = kGuestMac,
          .addresses = {prefix("10.0.2.15", 24), prefix("fd00::15", 64)},
          .rules = std::move(rules),
          .host = {},
          .proxied = first >= 9};
}

Frame bytes_of(std::span<const std::byte> bytes) {
  return Frame(bytes.begin(), bytes.end());
}

// --- the naive reader ---

// TCP and UDP, whole, without options and extension headers.
struct Plain {
  IpAddress source;
  IpAddress destination;
  std::uint8_t protocol = 0;
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
  std::size_t transport = 0;
};

IpAddress address_in(const Frame& frame, std::size_t at, std::uint32_t family) {
  IpAddress address{family, {}};
  for (std::size_t i = 0; i < address.bits() / 8; ++i) {
    address.bytes[i] = load8(frame, at + i);
  }
  return address;
}

std::uint32_t family_in(const Frame& frame) {
  const std::uint16_t type = load16(frame, 12);
  return type == 0x0800 ? 4 : type == 0x86dd ? 6 : 0;
}

std::optional<Plain> read_plain(const Frame& frame) {
  if (frame.size() < 14 + 20 + 8) {
    return std::nullopt;
  }
  Plain plain;
  if (family_in(frame) == 4) {
    if (load8(frame, 14) != 0x45 || (load16(frame, 20) & 0x3fff) != 0) {
      return std::nullopt;
    }
    plain.protocol = load8(frame, 23);
    plain.source = address_in(frame, 26, 4);
    plain.destination = address_in(frame, 30, 4);
    plain.transport = 34;
  } else if (family_in(frame) == 6 && frame.size() >= 14 + 40 + 8) {
    plain.protocol = load8(frame, 20);
    plain.source = address_in(frame, 22, 6);
    plain.destination = address_in(frame, 38, 6);
    plain.transport = 54;
  }
  if (plain.protocol != 6 && plain.protocol != 17) {
    return std::nullopt;
  }
  plain.source_port = load16(frame, plain.transport);
  plain.destination_port = load16(frame, plain.transport + 2);
  return plain;
}

bool has_bits_of(const IpAddress& address, const IpPrefix& prefix) {
  if (address.family != prefix.address.family) {
    return false;
  }
  for (std::size_t bit = 0; bit < prefix.length; ++bit) {
    const unsigned mask = 0x80U >> (bit % 8);
    if ((address.bytes[bit / 8] & mask) != (prefix.address.bytes[bit / 8] & mask)) {
      return false;
    }
  }
  return true;
}

bool first_rule_allows(const std::vector<NetworkRule>& rules, const IpAddress& destination,
                       const Plain& plain) {
  for (const NetworkRule& rule : rules) {
    if ((rule.protocol == 256 || rule.protocol == plain.protocol) &&
        plain.destination_port >= rule.first_port && plain.destination_port <= rule.last_port &&
        has_bits_of(destination, rule.destination)) {
      return rule.allow;
    }
  }
  return false;
}

bool rules_allow(const std::vector<NetworkRule>& rules, const Plain& plain) {
  if (has_bits_of(plain.destination, prefix("64:ff9b::", 96))) {
    IpAddress four{4, {}};
    std::copy_n(plain.destination.bytes.begin() + 12, 4, four.bytes.begin());
    if (!first_rule_allows(rules, four, plain)) {
      return false;
    }
  }
  return first_rule_allows(rules, plain.destination, plain);
}

bool is_nowhere(const IpAddress& address) {
  return has_bits_of(address, prefix("127.0.0.0", 8)) ||
         has_bits_of(address, prefix("0.0.0.0", 8)) || has_bits_of(address, prefix("::", 96)) ||
         has_bits_of(address, prefix("::ffff:0:0", 96)) ||
         has_bits_of(address, prefix("64:ff9b::", 104)) ||
         has_bits_of(address, prefix("64:ff9b::7f00:0", 104));
}

bool is_own(const IpAddress& address) {
  return std::ranges::find(own_addresses(), address) != own_addresses().end();
}

bool is_zero(const IpAddress& address) {
  return std::ranges::all_of(address.bytes, [](std::uint8_t byte) { return byte == 0; });
}

bool stays_on_link(const IpAddress& address) {
  return has_bits_of(address, prefix("224.0.0.0", 24)) ||
         has_bits_of(address, prefix("ff02::", 16)) || has_bits_of(address, prefix("fe80::", 10)) ||
         has_bits_of(address, prefix("fd00::", 64));
}

class World {
 public:
  explicit World(FuzzInput& input) : World(take_options(input)) {}

  void step(FuzzInput& input) {
    switch (input.below(6)) {
      case 0:
      case 1:
      case 2: {
        const Frame frame = take_frame(input, true);
        send(frame, take_header(input));
        break;
      }
      case 3:
        receive(take_frame(input, false));
        break;
      case 4:
        now_ += std::uint64_t{input.take<std::uint16_t>()} * kSecond / 8;
        break;
      default:
        remember(input);
        break;
    }
  }

 private:
  explicit World(const FrameFilter::Options& options)
      : rules_(options.rules), proxied_(options.proxied), filter_(options) {}

  using Flow = std::tuple<std::uint8_t, IpAddress, std::uint16_t, std::uint16_t>;
  using Fragmented = std::tuple<IpAddress, IpAddress, std::uint16_t, std::uint8_t>;

  // --- the input ---

  // Bytes, or a packet that is nearly one: extension headers or options, fragmentation, addresses,
  // ports, flags, payload, and what is changed in it.
  static Frame take_frame(FuzzInput& input, bool sent) {
    const std::uint8_t shape = input.byte();
    if ((shape & 0x80) != 0) {
      return bytes_of(input.take_bytes(input.take<std::uint16_t>() % kMostFrame));
    }
    const std::uint32_t family = (shape & 1) != 0 ? 6 : 4;
    const IpAddress other = take_address(input, family);
    const std::size_t own = input.below(16);
    const IpAddress self = own < 3 && own_addresses()[own].family == family ? own_addresses()[own]
                           : own < 14 ? own_addresses()[family == 4 ? 0 : 1]
                                      : take_address(input, family);
    const std::uint8_t icmp_protocol = family == 4 ? kIpIcmp : kIpIcmpv6;
    const std::array<std::uint8_t, 4> protocols{kIpTcp, kIpUdp, icmp_protocol, input.byte()};
    const std::uint8_t protocol = protocols[shape >> 1 & 3];
    const std::uint16_t first = input.take<std::uint16_t>();
    const std::uint16_t second = input.take<std::uint16_t>();
    const std::uint8_t flags = input.byte();
    Frame payload = protocol == kIpTcp   ? tcp(first, second, flags)
                    : protocol == kIpUdp ? udp(first, second)
                                         : icmp(flags, second);
    append(payload, bytes(input.below(64)));
    if (family == 6 && protocol == kIpIcmpv6) {
      append(payload, other);
    }
    const IpAddress& source = sent ? self : other;
    const IpAddress& destination = sent ? other : self;
    const bool fragmented = (shape & 8) != 0;
    const std::uint16_t fragment = fragmented ? input.take<std::uint16_t>() : 0;
    Frame frame = ethernet(family == 4 ? kEtherTypeIpv4 : kEtherTypeIpv6,
                           family == 4 ? make_ipv4(input, source, destination, protocol, payload,
                                                   (shape & 16) != 0, fragment)
                                       : make_ipv6(input, source, destination, protocol, payload,
                                                   (shape & 16) != 0, fragmented, fragment),
                           sent ? kGuestMac : kGatewayMac, sent ? kGatewayMac : kGuestMac);
    for (std::size_t i = input.below(4); i > 0 && (shape & 32) != 0; --i) {
      const std::size_t at = input.byte();
      frame[at % frame.size()] = std::byte{input.byte()};
    }
    append(frame, bytes((shape & 64) != 0 ? input.below(256) : 0, 0));
    return frame;
  }

  static Frame make_ipv4(FuzzInput& input, const IpAddress& source, const IpAddress& destination,
                         std::uint8_t protocol, const Frame& payload, bool options,
                         std::uint16_t fragment) {
    const Frame option = options ? bytes_of(input.take_bytes(input.below(11) * 4)) : Frame{};
    Frame packet =
        ipv4({.source = "0.0.0.0",
              .destination = "0.0.0.0",
              .protocol = protocol,
              .options = Frame(option.begin(), option.begin() + std::ssize(option) / 4 * 4),
              .fragment = fragment},
             payload);
    std::ranges::copy(std::as_bytes(std::span(source.bytes).first(4)), packet.begin() + 12);
    std::ranges::copy(std::as_bytes(std::span(destination.bytes).first(4)), packet.begin() + 16);
    return packet;
  }

  static Frame make_ipv6(FuzzInput& input, const IpAddress& source, const IpAddress& destination,
                         std::uint8_t protocol, const Frame& payload, bool extensions,
                         bool fragmented, std::uint16_t fragment) {
    constexpr std::array<std::uint8_t, 5> kHeaders{kIpHopByHop, kIpDestinationOptions, kIpRouting,
                                                   kIpAuthentication, kIpFragment};
    std::vector<std::uint8_t> headers;
    for (std::size_t i = extensions ? input.below(11) : 0; i > 0; --i) {
      headers.push_back(kHeaders[input.below(kHeaders.size())]);
    }
    if (fragmented) {
      headers.push_back(kIpFragment);
    }
    Frame packet;
    for (std::size_t i = 0; i < headers.size(); ++i) {
      append8(packet, i + 1 < headers.size() ? headers[i + 1] : protocol);
      append8(packet, 0);
      append16(packet, headers[i] == kIpFragment ? fragment : 0);
      append32(packet, 1);
    }
    packet = ipv6("::", "::", headers.empty() ? protocol : headers[0], packet + payload);
    std::ranges::copy(std::as_bytes(std::span(source.bytes)), packet.begin() + 8);
    std::ranges::copy(std::as_bytes(std::span(destination.bytes)), packet.begin() + 24);
    return packet;
  }

  static NetHeader take_header(FuzzInput& input) {
    NetHeader header{};
    if (input.below(4) == 0) {
      header.flags = input.byte();
      header.gso_type = input.byte();
      header.gso_size = input.byte();
      header.checksum_start = input.byte();
      header.checksum_offset = input.byte();
    }
    return header;
  }

  // --- the two directions ---

  void send(const Frame& frame, const NetHeader& header) {
    const auto head = std::span(frame).first(std::min(frame.size(), kMaxHeaders));
    const Verdict verdict = filter_.check_sent(head, frame.size(), header, now_);
    const auto packet = parse_packet(head, frame.size());
    require(packet.has_value() || verdict == Verdict::kMalformed, "what is no packet goes nowhere");
    if (verdict == Verdict::kPass) {
      check_passed(frame);
    } else if (verdict == Verdict::kDeny) {
      check_refusal(frame, filter_.refusal(head));
    }
    const auto plain = read_plain(frame);
    if (plain && packet) {
      require(packet->source == plain->source && packet->destination == plain->destination &&
                  packet->protocol == plain->protocol &&
                  packet->source_port == plain->source_port &&
                  packet->destination_port == plain->destination_port && !packet->fragment,
              "the parser reads plain packets as anybody does");
      check_plain(frame, *plain, header, verdict);
    }
    if (verdict == Verdict::kPass && packet->has_ports) {
      const auto flow = flows_.find(
          {packet->protocol, packet->destination, packet->destination_port, packet->source_port});
      if (flow != flows_.end() && packet->protocol == kIpTcp &&
          now_ - flow->second <= kConnectionLifetime) {
        flow->second = now_;
      }
      if (proxied_ && packet->protocol == kIpUdp) {
        questions_[{packet->protocol, packet->destination, packet->destination_port,
                    packet->source_port}] = now_;
      }
    }
  }

  void check_plain(const Frame& frame, const Plain& plain, const NetHeader& header,
                   Verdict verdict) {
    if (verdict == Verdict::kPass && header.flags != 0) {
      require(header.flags == kNetHeaderNeedsChecksum && header.checksum_start == plain.transport &&
                  header.checksum_offset == (plain.protocol == 6 ? 16 : 6),
              "a checksum goes where the protocol has it");
    }
    require(verdict != Verdict::kPass || header.flags != 0 || header.gso_type == kNetGsoNone,
            "what has no checksum to be made is not cut");
    const auto flow =
        flows_.find({plain.protocol, plain.destination, plain.destination_port, plain.source_port});
    const std::uint64_t age = flow != flows_.end() ? now_ - flow->second : ~std::uint64_t{0};
    const bool tcp = plain.protocol == kIpTcp;
    const bool may_answer = age <= (tcp ? kConnectionLifetime : kDatagramLifetime);
    const bool answers = age <= (tcp ? kNewLifetime : kDatagramLifetime);
    const bool good =
        address_in_mac(frame) && is_own(plain.source) && !is_nowhere(plain.destination);
    const bool allowed = good && rules_allow(rules_, plain);
    require(verdict != Verdict::kPass || allowed || (good && may_answer),
            "the rules decide, and what came from outside");
    require(verdict == Verdict::kPass || verdict == Verdict::kMalformed ||
                (!allowed && !(good && answers)),
            "what may go out goes out");
    require(verdict != Verdict::kMalformed || header.flags != 0 || header.gso_type != 0,
            "a plain packet is one");
  }

  static bool address_in_mac(const Frame& frame) {
    return std::ranges::equal(std::span(frame).subspan(6, 6), std::as_bytes(std::span(kGuestMac)));
  }

  // Of whatever was let out.
  void check_passed(const Frame& frame) {
    require(std::ranges::any_of(rules_, &NetworkRule::allow),
            "without a rule that allows nothing passes");
    require(address_in_mac(frame), "what is sent comes from the guest's own card");
    const std::uint32_t family = family_in(frame);
    if (family == 0) {
      const IpAddress speaks_of = address_in(frame, 28, 4);
      require(load16(frame, 12) == kEtherTypeArp && (is_own(speaks_of) || is_zero(speaks_of)) &&
                  std::ranges::equal(std::span(frame).subspan(22, 6),
                                     std::as_bytes(std::span(kGuestMac))),
              "only IP is let out, and ARP in the guest's own name");
      return;
    }
    const IpAddress source = address_in(frame, family == 4 ? 26 : 22, family);
    const IpAddress destination = address_in(frame, family == 4 ? 30 : 38, family);
    require(is_own(source) || (is_zero(source) && stays_on_link(destination)),
            "what is let out comes from the guest itself");
    require(!is_nowhere(destination), "nothing is let out to where nobody is");
    if (proxied_) {
      const std::uint8_t protocol = load8(frame, family == 4 ? 23 : 20);
      require(
          (family == 4 && (load16(frame, 20) & 0x3fff) == 0) ||
              (family == 6 && (protocol == kIpTcp || protocol == kIpUdp || protocol == kIpIcmpv6)),
          "a proxy gets no fragments and no extension headers");
    }
    if (family == 4) {
      check_fragment(frame, source, destination);
    }
  }

  // Of IPv4, whose header has it where it is.
  void check_fragment(const Frame& frame, const IpAddress& source, const IpAddress& destination) {
    const std::uint16_t fragment = load16(frame, 20);
    const Fragmented key{source, destination, load16(frame, 18), load8(frame, 23)};
    if ((fragment & 0x1fff) != 0) {
      const std::size_t least = load8(frame, 23) == kIpTcp ? kTcpHeader : kUdpHeader;
      require(fragments_.contains(key) && std::size_t{8} * (fragment & 0x1fff) >= least,
              "a fragment follows one that was let out, and leaves its headers alone");
    } else if ((fragment & 0x2000) != 0) {
      fragments_.insert(key);
    }
  }

  static void check_refusal(const Frame& denied, const Frame& refusal) {
    if (refusal.empty()) {
      return;
    }
    require(refusal.size() <= kMostRefusal, "a refusal is small");
    const auto packet = parse_packet(
        std::span(refusal).first(std::min(refusal.size(), kMaxHeaders)), refusal.size());
    require(packet && packet->kind == Packet::Kind::kIp && packet->size == refusal.size() &&
                !packet->fragment,
            "a refusal is a packet");
    const std::uint32_t family = family_in(denied);
    require(packet->destination_mac == kGuestMac && is_own(packet->destination) &&
                packet->destination == address_in(denied, family == 4 ? 26 : 22, family) &&
                packet->source == address_in(denied, family == 4 ? 30 : 38, family),
            "a refusal goes to the guest, in the name of whom it wanted");
    require(packet->protocol == (packet->has_ports ? kIpTcp
                                 : family == 4     ? kIpIcmp
                                                   : kIpIcmpv6),
            "a refusal is a reset or says unreachable");
    const auto segment = std::span(refusal).subspan(packet->transport);
    Frame summed;
    if (packet->protocol != kIpIcmp) {  // the pseudo-header
      append(summed, packet->source);
      append(summed, packet->destination);
      append32(summed, static_cast<std::uint32_t>(segment.size()));
      append32(summed, packet->protocol);
    }
    append(summed, segment);
    require(internet_sum(summed) == 0, "a refusal's checksum is right");
    require(family == 6 || internet_sum(std::span(refusal).subspan(kEthernetHeader, 20)) == 0,
            "so is its header's");
  }

  void receive(const Frame& frame) {
    const auto head = std::span(frame).first(std::min(frame.size(), kMaxHeaders));
    const bool let_in = filter_.check_received(head, frame.size(), now_);
    const bool open = std::ranges::any_of(rules_, &NetworkRule::allow);
    const auto packet = parse_packet(head, frame.size());
    if (proxied_) {
      require(open || !let_in, "nothing comes in where there is no network");
      if (let_in && packet && packet->protocol == kIpUdp) {
        const auto question = questions_.find(
            {packet->protocol, packet->source, packet->source_port, packet->destination_port});
        require(question != questions_.end() && now_ - question->second <= kDatagramLifetime,
                "a datagram from a proxy answers one of the guest's");
        question->second = now_;
      }
      return;
    }
    require(let_in == open, "frames come in unless there is no network");
    if (let_in && packet && packet->has_ports && is_own(packet->destination) &&
        (packet->protocol == kIpUdp || (packet->tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn)) {
      flows_[{packet->protocol, packet->source, packet->source_port, packet->destination_port}] =
          now_;
    }
  }

  // The filter's tables, smaller: a key, and whether it is put there or looked for.
  void remember(FuzzInput& input) {
    const std::uint8_t key = input.byte();
    if (const std::uint8_t value = input.byte(); value != 0) {
      recent_.put(key, value, now_);
      put_[key] = value;
    } else if (const std::uint8_t* found = recent_.find(key, now_)) {
      require(put_.contains(key) && put_[key] == *found, "a table has what was put there");
    }
    require(recent_.size() <= kMostRecent, "a table does not grow");
  }

  const std::vector<NetworkRule> rules_;
  const bool proxied_;
  FrameFilter filter_;
  std::uint64_t now_ = kSecond;
  std::map<Flow, std::uint64_t> flows_;      // that came from outside, and when they were last used
  std::map<Flow, std::uint64_t> questions_;  // to a proxy, likewise
  std::set<Fragmented> fragments_;           // whose first was let out
  static constexpr std::size_t kMostRecent = 4;
  Recent<std::uint8_t, std::uint8_t> recent_{kMostRecent, 1000 * kSecond};
  std::map<std::uint8_t, std::uint8_t> put_;
};

}  // namespace
}  // namespace msb::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  msb::virtio::testing::FuzzInput input(data, size);
  msb::virtio::World world(input);
  while (!input.empty()) {
    world.step(input);
  }
  return 0;
}
