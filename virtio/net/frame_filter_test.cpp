// SPDX-License-Identifier: Apache-2.0
#include "virtio/net/frame_filter.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>

#include "virtio/net/refusal.hpp"
#include "virtio/testing/frames.hpp"

namespace msb::virtio {
namespace {

using namespace testing;
using Verdict = FrameFilter::Verdict;

NetworkRule rule(bool allow, std::string_view address, std::uint32_t length,
                 std::uint32_t protocol = NetworkRule::kAnyProtocol, std::uint32_t first = 0,
                 std::uint32_t last = 65535) {
  return {allow, false, prefix(address, length), protocol, first, last};
}

const std::vector<NetworkRule> kEverything{rule(true, "0.0.0.0", 0), rule(true, "::", 0)};
const std::vector<NetworkRule> kWeb{rule(false, "192.0.2.128", 25),
                                    rule(true, "192.0.2.0", 24, kIpTcp, 443, 444),
                                    rule(true, "2001:db8::", 32, kIpTcp, 443, 443)};

struct Bed {
  explicit Bed(std::vector<NetworkRule> rules, bool proxied = false)
      : filter({.mac = kGuestMac,
                .addresses = {prefix("10.0.2.15", 24), prefix("fd00::15", 64)},
                .rules = std::move(rules),
                .host = {ip("192.0.2.7")},
                .proxied = proxied}) {}

  Verdict send(const Frame& frame, const NetHeader& header = {}) {
    return filter.check_sent(std::span(frame).first(std::min(frame.size(), kMaxHeaders)),
                             frame.size(), header, now);
  }
  Verdict send4(std::string_view destination, std::uint8_t protocol, const Frame& payload) {
    return send(ethernet(kEtherTypeIpv4,
                         ipv4({.destination = destination, .protocol = protocol}, payload)));
  }
  Verdict send6(std::string_view destination, std::uint8_t protocol, const Frame& payload,
                std::string_view source = "fd00::15") {
    return send(ethernet(kEtherTypeIpv6, ipv6(source, destination, protocol, payload)));
  }
  Verdict connect(std::string_view destination, std::uint16_t port) {
    const Frame header = tcp(40000, port, kTcpSyn);
    return destination.find(':') == std::string_view::npos ? send4(destination, kIpTcp, header)
                                                           : send6(destination, kIpTcp, header);
  }
  bool receive(const Frame& frame) {
    return filter.check_received(std::span(frame).first(std::min(frame.size(), kMaxHeaders)),
                                 frame.size(), now);
  }

  FrameFilter filter;
  std::uint64_t now = 1'000'000'000'000;
};

TEST_CASE("the first rule that matches decides, by address, protocol and port; none denies") {
  Bed bed(kWeb);
  CHECK(bed.connect("192.0.2.1", 443) == Verdict::kPass);
  CHECK(bed.connect("192.0.2.1", 444) == Verdict::kPass);
  CHECK(bed.connect("192.0.2.1", 442) == Verdict::kDeny);
  CHECK_FALSE(bed.filter.denial().rule.has_value());
  CHECK(bed.connect("192.0.2.1", 445) == Verdict::kDeny);
  CHECK(bed.connect("192.0.2.129", 443) == Verdict::kDeny);
  CHECK(bed.filter.denial().rule == 0);
  CHECK(bed.filter.denial().destination == ip("192.0.2.129"));
  CHECK(bed.filter.denial().source_port == 40000);
  CHECK(bed.filter.denial().destination_port == 443);
  CHECK(bed.connect("192.0.3.1", 443) == Verdict::kDeny);
  CHECK(bed.connect("2001:db8::1", 443) == Verdict::kPass);
  CHECK(bed.connect("2001:db9::1", 443) == Verdict::kDeny);
  CHECK(bed.send4("192.0.2.1", kIpUdp, udp(1, 443)) == Verdict::kDeny);
  CHECK(bed.send4("192.0.2.1", kIpIcmp, icmp(kIcmpEcho)) == Verdict::kDeny);
  CHECK(bed.send4("192.0.2.1", 47, bytes(20)) == Verdict::kDeny);
}

TEST_CASE("what no network has stays inside, whatever the policy says") {
  Bed bed(kEverything);
  for (const std::string_view address :
       {"127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "::1", "::", "::127.0.0.1",
        "::ffff:127.0.0.1", "::ffff:192.0.2.1"}) {
    CAPTURE(address);
    CHECK(bed.connect(address, 80) == Verdict::kDeny);
    CHECK(bed.filter.denial().reason == NetworkDenial::Reason::kNowhere);
  }
  CHECK(bed.connect("169.254.169.254", 80) == Verdict::kPass);
  CHECK(bed.connect("192.0.2.1", 80) == Verdict::kPass);
}

TEST_CASE("an IPv4 address behind a translator has to be allowed as such") {
  Bed bed({rule(false, "10.0.0.0", 8), rule(true, "0.0.0.0", 0), rule(true, "64:ff9b::", 96)});
  CHECK(bed.connect("64:ff9b::192.0.2.1", 80) == Verdict::kPass);
  CHECK(bed.connect("64:ff9b::10.0.0.1", 80) == Verdict::kDeny);
  CHECK(bed.connect("64:ff9b::127.0.0.1", 80) == Verdict::kDeny);
}

TEST_CASE("a source that is not the guest's own is denied, and not answered") {
  Bed bed(kEverything);
  const Frame header = tcp(1, 80, kTcpSyn);
  CHECK(bed.send(ethernet(kEtherTypeIpv4, ipv4({.source = "10.0.2.16", .destination = "192.0.2.1"},
                                               header))) == Verdict::kDeny);
  CHECK(bed.filter.denial().reason == NetworkDenial::Reason::kSource);
  CHECK(bed.filter.refusal({}).empty());
  CHECK(bed.send6("2001:db8::1", kIpTcp, header, "fd00::16") == Verdict::kDeny);
  CHECK(bed.send6("2001:db8::1", kIpTcp, header, "fe80::ff:fe00:1") ==
        Verdict::kPass);  // by its MAC address
  CHECK(bed.send6("2001:db8::1", kIpTcp, header, "fe80::ff:fe00:2") == Verdict::kDeny);
  CHECK(bed.send(ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.1"}, header),
                          kGatewayMac)) == Verdict::kDeny);
}

TEST_CASE("ARP asks for others and answers for itself only") {
  Bed bed(kWeb);
  const auto say = [&](std::uint16_t operation, const MacAddress& mac, std::string_view from) {
    return bed.send(ethernet(kEtherTypeArp, arp(operation, mac, from, "10.0.2.2")));
  };
  CHECK(say(1, kGuestMac, "10.0.2.15") == Verdict::kPass);
  CHECK(say(2, kGuestMac, "10.0.2.15") == Verdict::kPass);
  CHECK(say(1, kGuestMac, "0.0.0.0") == Verdict::kPass);
  CHECK(say(2, kGuestMac, "10.0.2.2") == Verdict::kIgnore);
  CHECK(say(1, kGatewayMac, "10.0.2.15") == Verdict::kIgnore);
}

TEST_CASE("neighbour discovery works on the link, is no router's, and no way out") {
  Bed bed(kWeb);
  const Frame question = neighbor(kIcmpv6NeighborSolicitation, "fe80::2");
  CHECK(bed.send6("ff02::1:ff00:2", kIpIcmpv6, question) == Verdict::kPass);
  CHECK(bed.send6("ff02::1:ff00:2", kIpIcmpv6, question, "::") == Verdict::kPass);
  CHECK(bed.send6("fd00::99", kIpIcmpv6, question) == Verdict::kPass);
  CHECK(bed.send6("2001:db8:9::1", kIpIcmpv6, question) == Verdict::kIgnore);
  CHECK(bed.send6("ff02::1", kIpIcmpv6, neighbor(kIcmpv6NeighborAdvertisement, "fd00::15")) ==
        Verdict::kPass);
  CHECK(bed.send6("ff02::1", kIpIcmpv6, neighbor(kIcmpv6NeighborAdvertisement, "fd00::16")) ==
        Verdict::kIgnore);
  CHECK(bed.send6("ff02::1", kIpIcmpv6, icmp(kIcmpv6RouterAdvertisement), "fe80::ff:fe00:1") ==
        Verdict::kIgnore);
  CHECK(bed.send6("fe80::9", kIpIcmpv6, icmp(kIcmpv6Redirect), "fe80::ff:fe00:1") ==
        Verdict::kIgnore);
  CHECK(bed.send6("ff02::2", kIpIcmpv6, icmp(kIcmpv6RouterSolicitation), "fe80::ff:fe00:1") ==
        Verdict::kPass);
  CHECK(bed.send6("2001:db8::1", kIpIcmpv6, icmp(kIcmpv6RouterSolicitation)) == Verdict::kIgnore);
  CHECK(bed.send6("2001:db8:9::1", kIpIcmpv6, icmp(kIcmpv6ListenerReport2)) == Verdict::kIgnore);
}

TEST_CASE("a policy that allows nothing closes the card in both directions") {
  Bed bed({rule(false, "0.0.0.0", 0)});
  CHECK(bed.send(ethernet(kEtherTypeArp, arp(1, kGuestMac, "10.0.2.15", "10.0.2.2"))) ==
        Verdict::kIgnore);
  CHECK(bed.send6("ff02::1:ff00:2", kIpIcmpv6, neighbor(kIcmpv6NeighborSolicitation, "fe80::2")) ==
        Verdict::kIgnore);
  CHECK(bed.connect("192.0.2.1", 443) == Verdict::kDeny);
  CHECK_FALSE(bed.receive(ethernet(kEtherTypeArp, arp(1, kGatewayMac, "10.0.2.2", "10.0.2.15"))));
}

TEST_CASE("the guest answers whoever began, on that connection alone and for as long as it lives") {
  Bed bed(kWeb);
  const auto from = [&](std::uint8_t protocol, const Frame& payload) {
    return bed.receive(ethernet(
        kEtherTypeIpv4,
        ipv4({.source = "10.0.2.2", .destination = "10.0.2.15", .protocol = protocol}, payload),
        kGatewayMac, kGuestMac));
  };
  CHECK(bed.send4("10.0.2.2", kIpTcp, tcp(80, 5000, kTcpSyn | kTcpAck)) == Verdict::kDeny);
  CHECK(from(kIpTcp, tcp(5000, 80, kTcpSyn)));
  CHECK(bed.send4("10.0.2.2", kIpTcp, tcp(80, 5000, kTcpSyn | kTcpAck)) == Verdict::kPass);
  CHECK(bed.send4("10.0.2.2", kIpTcp, tcp(80, 5001, kTcpAck)) == Verdict::kDeny);
  CHECK(bed.send4("10.0.2.2", kIpTcp, tcp(81, 5000, kTcpAck)) == Verdict::kDeny);
  CHECK(bed.send4("10.0.2.3", kIpTcp, tcp(80, 5000, kTcpAck)) == Verdict::kDeny);
  CHECK(from(kIpUdp, udp(53, 9)));
  CHECK(bed.send4("10.0.2.2", kIpUdp, udp(9, 53)) == Verdict::kPass);
  CHECK(from(kIpIcmp, icmp(kIcmpEcho)));
  CHECK(bed.send4("10.0.2.2", kIpIcmp, icmp(kIcmpEchoReply)) == Verdict::kPass);
  CHECK(bed.send4("10.0.2.2", kIpIcmp, icmp(kIcmpEcho)) == Verdict::kDeny);
  CHECK(bed.send4("10.0.2.2", kIpIcmp, icmp(kIcmpEchoReply, 8)) == Verdict::kDeny);
  CHECK(from(kIpTcp, tcp(5000, 80, kTcpAck)));  // it is more than a beginning now
  bed.now += 3'600'000'000'000;
  CHECK(bed.send4("10.0.2.2", kIpTcp, tcp(80, 5000, kTcpAck)) == Verdict::kPass);
  bed.now += 3 * 3'600'000'000'000;
  CHECK(bed.send4("10.0.2.2", kIpTcp, tcp(80, 5000, kTcpAck)) == Verdict::kDeny);
  SUBCASE("what is no beginning begins nothing") {
    CHECK(from(kIpTcp, tcp(6000, 80, kTcpAck)));
    CHECK(bed.send4("10.0.2.2", kIpTcp, tcp(80, 6000, kTcpAck)) == Verdict::kDeny);
  }
  SUBCASE("nor what is for somebody else") {
    CHECK(bed.receive(ethernet(
        kEtherTypeIpv4,
        ipv4({.source = "10.0.2.2", .destination = "10.0.2.16"}, tcp(7000, 80, kTcpSyn)))));
    CHECK(bed.send4("10.0.2.2", kIpTcp, tcp(80, 7000, kTcpAck)) == Verdict::kDeny);
  }
}

TEST_CASE(
    "a connection in use outlasts a flood of new ones, and datagrams are answered for minutes "
    "only") {
  Bed bed(kWeb);
  const auto from = [&](std::uint8_t protocol, const Frame& payload) {
    bed.receive(ethernet(
        kEtherTypeIpv4,
        ipv4({.source = "10.0.2.2", .destination = "10.0.2.15", .protocol = protocol}, payload),
        kGatewayMac, kGuestMac));
  };
  from(kIpTcp, tcp(5000, 80, kTcpSyn));
  from(kIpTcp, tcp(5000, 80, kTcpAck));
  from(kIpTcp, tcp(5001, 80, kTcpSyn));
  for (std::uint16_t port = 10'000; port < 40'000; ++port) {
    from(kIpTcp, tcp(port, 80, kTcpSyn));
    from(kIpUdp, udp(port, 80));
  }
  CHECK(bed.send4("10.0.2.2", kIpTcp, tcp(80, 5000, kTcpAck)) == Verdict::kPass);
  CHECK(bed.send4("10.0.2.2", kIpTcp, tcp(80, 5001, kTcpAck)) == Verdict::kDeny);
  CHECK(bed.send4("10.0.2.2", kIpUdp, udp(80, 39'999)) == Verdict::kPass);
  for (int minute = 0; minute < 4; ++minute) {  // what the guest sends does not keep it open
    bed.now += 60'000'000'000;
    bed.send4("10.0.2.2", kIpUdp, udp(80, 39'999));
  }
  CHECK(bed.send4("10.0.2.2", kIpUdp, udp(80, 39'999)) == Verdict::kDeny);
}

TEST_CASE(
    "what was decided once is decided so again, for that destination, protocol and port alone") {
  Bed bed(kWeb);
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t host = 0; host < 256; ++host) {
      const std::string address = fmt::format("192.0.2.{}", host);
      for (const std::uint16_t port : std::initializer_list<std::uint16_t>{443, 445}) {
        CHECK((bed.connect(address, port) == Verdict::kPass) == (host < 128 && port == 443));
        CHECK(bed.send4(address, kIpUdp, udp(1, port)) == Verdict::kDeny);
      }
      CHECK(bed.send4(address, kIpIcmp, icmp(kIcmpEcho)) == Verdict::kDeny);
    }
  }
}

TEST_CASE("a rule for the host means the addresses that it has now") {
  NetworkRule own;
  own.host = true;
  Bed bed({own, rule(true, "192.0.2.0", 24)});
  CHECK(bed.connect("192.0.2.7", 80) == Verdict::kDeny);
  CHECK(bed.filter.denial().rule == 0);
  CHECK(bed.connect("192.0.2.8", 80) == Verdict::kPass);
  bed.filter.set_host({ip("192.0.2.8"), ip("2001:db8::1")});
  CHECK(bed.connect("192.0.2.7", 80) == Verdict::kPass);
  CHECK(bed.connect("192.0.2.8", 80) == Verdict::kDeny);
}

TEST_CASE("a proxy gets what it reads as it was judged, and nothing else") {
  // passt 2023-03 looks for ports where options are, and reads later fragments as first ones.
  Bed bed(kEverything, true);
  CHECK(bed.connect("192.0.2.1", 443) == Verdict::kPass);
  CHECK(bed.connect("2001:db8::1", 443) == Verdict::kPass);
  CHECK(bed.send4("192.0.2.1", kIpIcmp, icmp(kIcmpEcho)) == Verdict::kPass);
  const Frame segment = tcp(1, 443, kTcpSyn);
  const auto refused = [&](Verdict verdict) {
    return verdict == Verdict::kDeny &&
           bed.filter.denial().reason == NetworkDenial::Reason::kUnclear;
  };
  for (const std::uint8_t next : {kIpHopByHop, kIpDestinationOptions, kIpAuthentication}) {
    Frame header;
    append8(header, kIpTcp);
    append8(header, next == kIpAuthentication ? 1 : 0);
    append16(header, 22);
    append32(header, 0);
    if (next == kIpAuthentication) {
      append32(header, 0);
    }
    CAPTURE(next);
    CHECK(refused(bed.send6("2001:db8::1", next, header + segment)));
  }
  for (const std::uint8_t protocol :
       std::initializer_list<std::uint8_t>{50, 59, 132, 135, 139, 253}) {
    CAPTURE(protocol);
    CHECK(refused(bed.send6("2001:db8::1", protocol, segment)));
    CHECK(refused(bed.send4("192.0.2.1", protocol, segment)));
  }
  const auto fragment = [&](std::uint16_t offset) {
    return bed.send(ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.1", .fragment = offset},
                                                  segment + bytes(4))));
  };
  CHECK(refused(fragment(0x2000)));
  CHECK(refused(fragment(3)));
  CHECK(bed.filter.refusal({}).empty());  // RFC 1122 section 3.2.2: what is quoted has no ports
  CHECK(refused(bed.send(ethernet(
      kEtherTypeIpv4, ipv4({.destination = "192.0.2.1", .options = bytes(4, 1)}, segment)))));
  // What hosts say by themselves is no event.
  Frame router_alert;
  append8(router_alert, kIpIcmpv6);
  append8(router_alert, 0);
  append32(router_alert, 0x05020000);
  append16(router_alert, 0x0100);
  CHECK(bed.send6("ff02::16", kIpHopByHop, router_alert + icmp(kIcmpv6ListenerReport2),
                  "fe80::ff:fe00:1") == Verdict::kIgnore);
}

TEST_CASE("through a proxy nobody begins anything: datagrams come in as answers") {
  Bed bed(kWeb, true);
  const auto from = [&](std::string_view source, std::uint8_t protocol, const Frame& payload) {
    return bed.receive(ethernet(
        kEtherTypeIpv4,
        ipv4({.source = source, .destination = "10.0.2.15", .protocol = protocol}, payload),
        kGatewayMac, kGuestMac));
  };
  CHECK_FALSE(from("198.51.100.1", kIpUdp, udp(4000, 5000)));
  CHECK(bed.send4("198.51.100.1", kIpUdp, udp(5000, 4000)) == Verdict::kDeny);
  CHECK(from("198.51.100.1", kIpTcp, tcp(4000, 80, kTcpSyn)));
  CHECK(bed.send4("198.51.100.1", kIpTcp, tcp(80, 4000, kTcpSyn | kTcpAck)) == Verdict::kDeny);
  Bed open(kEverything, true);
  CHECK(open.send4("192.0.2.1", kIpUdp, udp(5000, 53)) == Verdict::kPass);
  const auto answer = [&](std::string_view source, std::uint16_t port) {
    return open.receive(ethernet(
        kEtherTypeIpv4,
        ipv4({.source = source, .destination = "10.0.2.15", .protocol = kIpUdp}, udp(port, 5000)),
        kGatewayMac, kGuestMac));
  };
  CHECK(answer("192.0.2.1", 53));
  CHECK_FALSE(answer("192.0.2.1", 54));
  CHECK_FALSE(answer("192.0.2.2", 53));
  open.now += 181'000'000'000;
  CHECK_FALSE(answer("192.0.2.1", 53));
}

TEST_CASE("fragments follow a first one that was let out, behind its headers") {
  Bed bed(kWeb);
  const auto first = [&](std::uint16_t id, std::uint16_t port) {
    return bed.send(
        ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.1", .fragment = 0x2000, .id = id},
                                      tcp(1, port, kTcpSyn) + bytes(4))));
  };
  const auto later = [&](std::uint16_t id, std::uint16_t offset,
                         std::string_view source = "10.0.2.15", std::uint8_t protocol = kIpTcp) {
    return bed.send(ethernet(kEtherTypeIpv4, ipv4({.source = source,
                                                   .destination = "192.0.2.1",
                                                   .protocol = protocol,
                                                   .fragment = offset,
                                                   .id = id},
                                                  bytes(16))));
  };
  CHECK(later(1, 3) == Verdict::kDeny);
  CHECK(bed.filter.denial().reason == NetworkDenial::Reason::kFragment);
  CHECK(first(1, 443) == Verdict::kPass);
  CHECK(later(1, 3) == Verdict::kPass);
  CHECK(later(1, 100) == Verdict::kPass);
  CHECK(later(1, 1) == Verdict::kDeny);  // overlaps the header
  CHECK(later(1, 2) == Verdict::kDeny);
  CHECK(later(2, 3) == Verdict::kDeny);
  CHECK(later(1, 3, "10.0.2.15", kIpUdp) == Verdict::kDeny);
  CHECK(later(1, 3, "10.0.2.16") == Verdict::kDeny);
  CHECK(first(2, 22) == Verdict::kDeny);
  CHECK(later(2, 3) == Verdict::kDeny);
  bed.now += 31'000'000'000;
  CHECK(later(1, 3) == Verdict::kDeny);
  for (std::uint16_t id = 10; id < 10'000; ++id) {  // bounded: the oldest give way
    first(id, 443);
  }
  CHECK(later(10, 3) == Verdict::kDeny);
  CHECK(later(9999, 3) == Verdict::kPass);
}

TEST_CASE("the device below is asked for nothing but the protocol's own checksum and segments") {
  Bed bed(kEverything);
  const Frame frame =
      ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.1"}, tcp(1, 80, kTcpAck)));
  const NetHeader good{.flags = kNetHeaderNeedsChecksum,
                       .gso_type = kNetGsoTcp4,
                       .header_length = 54,
                       .gso_size = 1448,
                       .checksum_start = 34,
                       .checksum_offset = 16,
                       .buffers = 0};
  CHECK(bed.send(frame, good) == Verdict::kPass);
  const auto with = [&](auto change) {
    NetHeader header = good;
    change(header);
    return bed.send(frame, header);
  };
  // The sum would be written over the destination, behind all checks.
  CHECK(with([](NetHeader& header) { header.checksum_start = 14; }) == Verdict::kMalformed);
  CHECK(with([](NetHeader& header) { header.checksum_offset = 2; }) == Verdict::kMalformed);
  CHECK(with([](NetHeader& header) { header.checksum_start = 65535; }) == Verdict::kMalformed);
  CHECK(with([](NetHeader& header) { header.gso_type = kNetGsoTcp6; }) == Verdict::kMalformed);
  CHECK(with([](NetHeader& header) { header.gso_type = 3; }) == Verdict::kMalformed);
  CHECK(with([](NetHeader& header) { header.gso_size = 0; }) == Verdict::kMalformed);
  CHECK(with([](NetHeader& header) { header.gso_size = 47; }) == Verdict::kMalformed);
  CHECK(with([](NetHeader& header) { header.flags = 0; }) == Verdict::kMalformed);
  CHECK(with([](NetHeader& header) { header.flags = 5; }) == Verdict::kMalformed);
  CHECK(with([](NetHeader& header) { header.gso_type = kNetGsoTcp4 | kNetGsoEcn; }) ==
        Verdict::kPass);
  CHECK(with([](NetHeader& header) { header.gso_type = kNetGsoNone; }) == Verdict::kPass);
  CHECK(with([](NetHeader& header) { header.gso_type = kNetGsoEcn; }) == Verdict::kMalformed);
  CHECK(bed.send(ethernet(kEtherTypeArp, arp(1, kGuestMac, "10.0.2.15", "10.0.2.2")), good) ==
        Verdict::kMalformed);
}

TEST_CASE("a denied connection is reset as RFC 9293 has it") {
  Bed bed({});
  for (const bool six : {false, true}) {
    CAPTURE(six);
    const auto frame_of = [&](const Frame& segment) {
      return six ? ethernet(kEtherTypeIpv6, ipv6("fd00::15", "2001:db8::1", kIpTcp, segment))
                 : ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.1"}, segment));
    };
    Frame frame = frame_of(tcp(40000, 443, kTcpSyn, 0xffffffff));
    CHECK(bed.send(frame) == Verdict::kDeny);
    const Frame answer = bed.filter.refusal(frame);
    const auto reset = parse_packet(answer, answer.size());
    REQUIRE(reset);
    CHECK(reset->destination_mac == kGuestMac);
    CHECK(reset->source == ip(six ? "2001:db8::1" : "192.0.2.1"));
    CHECK(reset->destination == ip(six ? "fd00::15" : "10.0.2.15"));
    CHECK(reset->source_port == 443);
    CHECK(reset->destination_port == 40000);
    CHECK(reset->tcp_flags == (kTcpReset | kTcpAck));
    CHECK(load32(answer, reset->transport + 4) == 0);
    CHECK(load32(answer, reset->transport + 8) == 0);  // 0xffffffff + 1
    const std::size_t addresses = six ? 32 : 8;
    CHECK(internet_sum(std::span(answer).subspan(reset->transport - addresses),
                       kIpTcp + kTcpHeader) == 0);
    if (!six) {
      CHECK(internet_sum(std::span(answer).subspan(kEthernetHeader, kIpv4Header)) == 0);
    }
    // One that is under way already: the reset stands where the guest expects it.
    frame = frame_of(tcp(40000, 443, kTcpAck, 1, 777));
    bed.send(frame);
    const Frame later = bed.filter.refusal(frame);
    CHECK(load32(later, reset->transport + 4) == 777);
    CHECK(load8(later, reset->transport + 13) == kTcpReset);
    frame = frame_of(tcp(40000, 443, kTcpReset));
    bed.send(frame);
    CHECK(bed.filter.refusal(frame).empty());
  }
}

TEST_CASE("a denied datagram is answered by unreachable, with what it was") {
  Bed bed({});
  Frame frame = ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.1", .protocol = kIpUdp},
                                              udp(5, 6, bytes(100))));
  bed.send(frame);
  const Frame answer = bed.filter.refusal(frame);
  const auto packet = parse_packet(answer, answer.size());
  REQUIRE(packet);
  CHECK(packet->icmp_type == kIcmpUnreachable);
  CHECK(load8(answer, packet->transport + 1) == kIcmpProhibited);
  CHECK(internet_sum(std::span(answer).subspan(packet->transport)) == 0);
  CHECK(std::equal(frame.begin() + kEthernetHeader, frame.end(),
                   answer.begin() + static_cast<std::ptrdiff_t>(packet->transport + kIcmpHeader)));
  frame = ethernet(kEtherTypeIpv6, ipv6("fd00::15", "2001:db8::1", kIpUdp, udp(5, 6, bytes(101))));
  bed.send(frame);
  const Frame six = bed.filter.refusal(frame);
  const auto parsed = parse_packet(six, six.size());
  REQUIRE(parsed);
  CHECK(parsed->icmp_type == kIcmpv6Unreachable);
  CHECK(internet_sum(std::span(six).subspan(parsed->transport - 32),
                     static_cast<std::uint32_t>(kIpIcmpv6 + six.size() - parsed->transport)) == 0);
  SUBCASE("but neither multicast nor errors are") {
    frame = ethernet(kEtherTypeIpv4,
                     ipv4({.destination = "224.0.0.251", .protocol = kIpUdp}, udp(5, 6)));
    CHECK(bed.send(frame) == Verdict::kDeny);
    CHECK(bed.filter.refusal(frame).empty());
    frame = ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.1", .protocol = kIpIcmp},
                                          icmp(kIcmpUnreachable)));
    CHECK(bed.send(frame) == Verdict::kDeny);
    CHECK(bed.filter.refusal(frame).empty());
  }
}

}  // namespace
}  // namespace msb::virtio
