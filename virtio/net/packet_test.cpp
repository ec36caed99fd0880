// SPDX-License-Identifier: Apache-2.0
#include "virtio/net/packet.hpp"

#include <doctest/doctest.h>

#include "virtio/testing/frames.hpp"

namespace msb::virtio {
namespace {

using namespace testing;

std::optional<Packet> parse(const Frame& frame) {
  return parse_packet(std::span(frame).first(std::min(frame.size(), kMaxHeaders)), frame.size());
}

Frame four(const Ipv4Fields& fields, const Frame& payload) {
  return ethernet(kEtherTypeIpv4, ipv4(fields, payload));
}

Frame six(std::uint8_t next, const Frame& payload) {
  return ethernet(kEtherTypeIpv6, ipv6("fd00::15", "2001:db8::1", next, payload));
}

// An extension header of `units` times 8 bytes behind the first 8.
Frame extension(std::uint8_t next, std::uint8_t units = 0, std::uint8_t third = 0,
                std::uint8_t fourth = 0) {
  Frame header;
  append8(header, next);
  append8(header, units);
  append8(header, third);
  append8(header, fourth);
  append32(header, 0);
  return header + bytes(std::size_t{8} * units, 0);
}

Frame fragment_header(std::uint8_t next, std::uint32_t offset, bool more, std::uint32_t id = 9) {
  Frame header;
  append8(header, next);
  append8(header, 0);
  append16(header, offset | (more ? 1U : 0U));
  append32(header, id);
  return header;
}

TEST_CASE(
    "a TCP packet of IPv4 is known by its addresses, ports and flags, whatever pads its frame") {
  const auto packet =
      parse(four({.destination = "192.0.2.9"}, tcp(40000, 443, kTcpSyn)) + bytes(30, 0));
  REQUIRE(packet);
  CHECK(packet->kind == Packet::Kind::kIp);
  CHECK(packet->source == ip("10.0.2.15"));
  CHECK(packet->destination == ip("192.0.2.9"));
  CHECK(packet->protocol == kIpTcp);
  CHECK(packet->source_port == 40000);
  CHECK(packet->destination_port == 443);
  CHECK(packet->tcp_flags == kTcpSyn);
  CHECK(packet->transport == 34);
  CHECK(packet->size == 54);
  CHECK_FALSE(packet->fragment);
}

TEST_CASE("lengths that do not fit make no packet") {
  const Frame good = four({.destination = "192.0.2.9"}, tcp(1, 2, kTcpSyn));
  for (std::size_t size = 0; size < good.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(parse(Frame(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))));
  }
  for (const int total : {0, 19, 39, 41, 65535}) {
    CAPTURE(total);
    CHECK_FALSE(parse(four({.destination = "192.0.2.9", .total = total}, tcp(1, 2, kTcpSyn))));
  }
  for (int words = 0; words < 16; ++words) {
    Frame changed = good;
    changed[kEthernetHeader] = static_cast<std::byte>(0x40 | words);
    CAPTURE(words);
    CHECK(parse(changed).has_value() == (words == 5));
  }
  for (int words = 0; words < 16; ++words) {  // of TCP
    Frame changed = good;
    changed[34 + 12] = static_cast<std::byte>(words << 4);
    CAPTURE(words);
    CHECK(parse(changed).has_value() == (words == 5));
  }
  Frame datagram = four({.destination = "192.0.2.9", .protocol = kIpUdp}, udp(1, 2, bytes(4)));
  for (const std::uint32_t length : {0U, 7U, 13U, 65535U}) {
    store16(datagram, 34 + 4, length);
    CAPTURE(length);
    CHECK_FALSE(parse(datagram));
  }
}

TEST_CASE("options of IPv4 pass, but for source routes and such that do not end") {
  const auto with = [](std::initializer_list<int> options) {
    Frame text;
    for (const int option : options) {
      append8(text, static_cast<std::uint32_t>(option));
    }
    return parse(four({.destination = "192.0.2.9", .options = text}, tcp(1, 2, kTcpSyn)));
  };
  CHECK(with({1, 1, 1, 0}));
  CHECK(with({7, 7, 4, 0, 0, 0, 0, 0}));           // record route
  CHECK_FALSE(with({131, 7, 4, 10, 0, 0, 1, 0}));  // loose source route
  CHECK_FALSE(with({1, 137, 7, 4, 10, 0, 0, 1}));  // strict source route
  CHECK_FALSE(with({7, 0, 0, 0}));
  CHECK_FALSE(with({7, 1, 0, 0}));
  CHECK_FALSE(with({7, 5, 0, 0}));
  CHECK_FALSE(with({1, 1, 1, 7}));
  CHECK(with({0, 131, 131, 131}));  // behind the end
}

TEST_CASE("IPv6 extension headers lead to the ports, but for routes that go on") {
  const Frame header = tcp(1, 443, kTcpSyn);
  const auto port_behind = [&](std::uint8_t next, const Frame& headers) {
    const auto packet = parse(six(next, headers + header));
    return packet && packet->protocol == kIpTcp ? packet->destination_port : -1;
  };
  CHECK(port_behind(kIpTcp, {}) == 443);
  CHECK(port_behind(kIpHopByHop, extension(kIpTcp)) == 443);
  CHECK(port_behind(kIpHopByHop, extension(kIpDestinationOptions) + extension(kIpTcp, 3)) == 443);
  CHECK(port_behind(kIpRouting, extension(kIpTcp, 0, 0, 0)) == 443);
  CHECK(port_behind(kIpRouting, extension(kIpTcp, 0, 0, 1)) == -1);
  CHECK(port_behind(kIpAuthentication, extension(kIpTcp)) == 443);
  Frame many;
  for (int i = 0; i < 8; ++i) {
    append(many, extension(i == 7 ? kIpTcp : kIpDestinationOptions));
  }
  CHECK(port_behind(kIpDestinationOptions, many) == 443);
  CHECK(port_behind(kIpDestinationOptions, extension(kIpDestinationOptions) + many) == -1);
  CHECK(port_behind(kIpDestinationOptions, extension(kIpTcp, 40)) ==
        -1);  // not in what is looked at
  CHECK(port_behind(kIpDestinationOptions, extension(kIpTcp, 255)) == -1);  // not in the packet
  Frame jumbo = six(kIpHopByHop, extension(kIpTcp) + header);
  store16(jumbo, kEthernetHeader + 4, 0);
  CHECK_FALSE(parse(jumbo));
}

TEST_CASE(
    "of a fragmented packet the first fragment has all headers, and the others say nothing of "
    "ports") {
  const auto first = parse(
      four({.destination = "192.0.2.9", .fragment = 0x2000}, tcp(1, 443, kTcpSyn) + bytes(4)));
  REQUIRE(first);
  CHECK(first->first_fragment);
  CHECK_FALSE(first->last_fragment);
  CHECK(first->destination_port == 443);
  const auto later = parse(four({.destination = "192.0.2.9", .fragment = 3}, bytes(9)));
  REQUIRE(later);
  CHECK_FALSE(later->first_fragment);
  CHECK(later->last_fragment);
  CHECK(later->fragment_offset == 24);
  CHECK_FALSE(later->has_ports);
  SUBCASE("tiny ones (RFC 1858) are none") {
    CHECK_FALSE(parse(four({.destination = "192.0.2.9", .fragment = 0x2000}, bytes(16))));
    CHECK_FALSE(parse(six(kIpFragment, fragment_header(kIpTcp, 0, true) + bytes(16))));
    CHECK_FALSE(parse(
        six(kIpFragment, fragment_header(kIpDestinationOptions, 0, true) + extension(kIpTcp))));
  }
  SUBCASE(
      "sizes that are no multiple of 8, nothing at all, and more than fits into a packet are "
      "refused") {
    CHECK_FALSE(
        parse(four({.destination = "192.0.2.9", .fragment = 0x2000}, tcp(1, 443, 0) + bytes(3))));
    CHECK_FALSE(parse(four({.destination = "192.0.2.9", .fragment = 8}, {})));
    CHECK_FALSE(parse(four({.destination = "192.0.2.9", .fragment = 0x1fff}, bytes(16))));
  }
  SUBCASE("of IPv6 likewise") {
    const auto begin =
        parse(six(kIpFragment, fragment_header(kIpTcp, 0, true) + tcp(1, 443, kTcpSyn) + bytes(4)));
    REQUIRE(begin);
    CHECK(begin->destination_port == 443);
    CHECK(begin->fragment_id == 9);
    const auto end = parse(six(kIpFragment, fragment_header(kIpTcp, 24, false) + bytes(5)));
    REQUIRE(end);
    CHECK(end->fragment_offset == 24);
    CHECK_FALSE(end->has_ports);
    CHECK_FALSE(
        parse(six(kIpFragment, fragment_header(kIpFragment, 0, true) +
                                   fragment_header(kIpTcp, 0, true) + tcp(1, 443, 0) + bytes(4))));
  }
}

TEST_CASE("ARP and neighbour discovery tell who speaks of whom") {
  const auto question = parse(ethernet(kEtherTypeArp, arp(1, kGuestMac, "10.0.2.15", "10.0.2.2")));
  REQUIRE(question);
  CHECK(question->kind == Packet::Kind::kArp);
  CHECK(question->arp_sender == kGuestMac);
  CHECK(question->source == ip("10.0.2.15"));
  CHECK(question->destination == ip("10.0.2.2"));
  Frame other = arp(1, kGuestMac, "10.0.2.15", "10.0.2.2");
  store16(other, 2, kEtherTypeIpv6);
  CHECK_FALSE(parse(ethernet(kEtherTypeArp, other)));
  const auto solicitation = parse(six(kIpIcmpv6, neighbor(kIcmpv6NeighborSolicitation, "fe80::2")));
  REQUIRE(solicitation);
  CHECK(solicitation->neighbor_target == ip("fe80::2"));
  CHECK_FALSE(parse(six(kIpIcmpv6, icmp(kIcmpv6NeighborSolicitation))));
  CHECK_FALSE(parse(six(kIpFragment, fragment_header(kIpIcmpv6, 0, false) +
                                         neighbor(kIcmpv6NeighborSolicitation, "fe80::2"))));
}

TEST_CASE("other types of Ethernet are frames and no packets") {
  const auto packet = parse(ethernet(0x8100, bytes(60)));
  REQUIRE(packet);
  CHECK(packet->kind == Packet::Kind::kOther);
}

}  // namespace
}  // namespace msb::virtio
