// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/boot_config.h"
}

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "protocol/msb_exec.h"

namespace {

struct Parsed {
  bool ok = false;
  boot_config config{};
  failure why{};
  std::vector<char> text;  // of exactly the size that the parser may touch

  explicit Parsed(const std::string& lines) {
    const std::string file = "msb-boot 1\nlayer a\n" + lines;
    text.assign(file.begin(), file.end());
    text.push_back('x');
    text.shrink_to_fit();
    ok = boot_config_parse(text.data(), file.size(), &config, &why);
  }

  const boot_network& network() const { return config.network; }
};

std::string show(int family, const uint8_t* bytes) {
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(family, bytes, text, sizeof text);
  return text;
}

std::string repeat(unsigned count, const std::string& line) {
  std::string lines;
  for (unsigned i = 0; i < count; i++) lines += line;
  return lines;
}

const std::string kCard = "interface 52:54:00:12:34:56 1500\n";

}  // namespace

TEST_CASE("boot_network_of_a_card_has_its_addresses_and_gateways") {
  Parsed parsed("address 192.0.2.2/24\n" + kCard +
                "address 2001:db8::2/64\ngateway 192.0.2.1 02:00:00:00:aB:01\ngateway fe80::1\n");
  REQUIRE(parsed.ok);
  const boot_card& card = parsed.network().card;
  CHECK(card.present);
  CHECK(std::memcmp(card.mac, "\x52\x54\x00\x12\x34\x56", 6) == 0);
  CHECK(card.mtu == 1500);
  CHECK(show(AF_INET, card.addresses[BOOT_IPV4].bytes) == "192.0.2.2");
  CHECK(card.addresses[BOOT_IPV4].prefix == 24);
  CHECK(show(AF_INET6, card.addresses[BOOT_IPV6].bytes) == "2001:db8::2");
  CHECK(card.addresses[BOOT_IPV6].prefix == 64);
  CHECK(show(AF_INET, card.gateways[BOOT_IPV4].bytes) == "192.0.2.1");
  REQUIRE(card.gateways[BOOT_IPV4].has_mac);
  CHECK(std::memcmp(card.gateways[BOOT_IPV4].mac, "\x02\0\0\0\xab\x01", 6) == 0);
  CHECK(show(AF_INET6, card.gateways[BOOT_IPV6].bytes) == "fe80::1");
  CHECK_FALSE(card.gateways[BOOT_IPV6].has_mac);
}

TEST_CASE("boot_network_without_a_line_is_none") {
  Parsed parsed("");
  REQUIRE(parsed.ok);
  CHECK_FALSE(parsed.network().card.present);
  CHECK(parsed.network().forward_count == 0);
}

TEST_CASE("boot_network_keeps_names_and_forwards") {
  Parsed parsed(
      "nameserver 127.0.0.53\nnameserver 2001:db8::53\nsearch example.com a.b\n"
      "host db_1.local 192.0.2.7\nforward udp 127.0.0.53 53 1026\nforward tcp 127.1.2.3 80 "
      "65535\n");
  REQUIRE(parsed.ok);
  const boot_network& network = parsed.network();
  REQUIRE(network.nameserver_count == 2);
  CHECK(std::string(network.nameservers[1]) == "2001:db8::53");
  CHECK(std::string(network.search) == "example.com a.b");
  REQUIRE(network.host_count == 1);
  CHECK(std::string(network.hosts[0].name) == "db_1.local");
  CHECK(std::string(network.hosts[0].address) == "192.0.2.7");
  REQUIRE(network.forward_count == 2);
  CHECK(network.forwards[0].protocol == IPPROTO_UDP);
  CHECK(network.forwards[0].port == 53);
  CHECK(network.forwards[0].host_port == 1026);
  CHECK(network.forwards[1].protocol == IPPROTO_TCP);
  CHECK(ntohl(network.forwards[1].address.s_addr) == 0x7f010203);
}

TEST_CASE("boot_network_takes_no_more_than_the_limits") {
  for (const auto& [most, line] : {std::pair{BOOT_NAMESERVERS_MAX, "nameserver ::1\n"},
                                   {BOOT_HOSTS_MAX, "host a ::1\n"},
                                   {BOOT_FORWARDS_MAX, "forward tcp 127.0.0.1 1 1026\n"}}) {
    CHECK(Parsed(repeat(most, line)).ok);
    CHECK(Parsed(repeat(most + 1, line)).why.code == E2BIG);
  }
  // What a launcher may ask for: 64 ports of hosts, and DNS by TCP and UDP.
  CHECK(Parsed(repeat(64 + 2, "forward tcp 127.0.0.1 1 1026\n")).ok);
  CHECK(Parsed("host " + std::string(253, 'h') + " ::1\n").ok);
  CHECK(Parsed("interface 52:54:00:12:34:56 576\n").ok);
  CHECK(Parsed("interface 52:54:00:12:34:56 65535\n").ok);
  CHECK(Parsed("interface 52:54:00:12:34:56 1280\naddress ::2/128\n").ok);
}

TEST_CASE("boot_network_that_is_wrong_is_refused") {
  for (const std::string& lines :
       {std::string("interface 52:54:00:12:34:56\n"),
        std::string("interface 52:54:00:12:34 1500\n"),
        std::string("interface 52:54:00:12:34:56:78 1500\n"),
        std::string("interface 52:54:00:12:34:5g 1500\n"),
        std::string("interface 53:54:00:12:34:56 1500\n"),
        std::string("interface 52-54-00-12-34-56 1500\n"),
        std::string("interface 52:54:00:12:34:56 575\n"),
        std::string("interface 52:54:00:12:34:56 65536\n"),
        std::string("interface 52:54:00:12:34:56 99999999999\n"),
        std::string("interface 52:54:00:12:34:56 -1\n"),
        std::string("interface 52:54:00:12:34:56 1500 \n"),
        kCard + kCard,
        std::string("address 192.0.2.2/24\n"),
        std::string("gateway 192.0.2.1\n"),
        kCard + "address 192.0.2.2\n",
        kCard + "address 192.0.2.2/\n",
        kCard + "address 192.0.2.2/0\n",
        kCard + "address 192.0.2.2/33\n",
        kCard + "address 192.0.2.256/24\n",
        kCard + "address 192.0.2/24\n",
        kCard + "address fe80::1%eth0/64\n",
        kCard + "address ::2/129\n",
        kCard + "address 192.0.2.2/24\naddress 192.0.2.3/24\n",
        kCard + "gateway 192.0.2.1\ngateway 192.0.2.1\n",
        kCard + "gateway 192.0.2.1 \n",
        kCard + "gateway 192.0.2.1 52:54\n",
        std::string("interface 52:54:00:12:34:56 1279\naddress ::2/64\n"),
        std::string("nameserver example.com\n"),
        std::string("search a\nsearch b\n"),
        std::string("search a\tb\n"),
        std::string("host a\n"),
        std::string("host a b\n"),
        std::string("host a/b ::1\n"),
        std::string("host a ::1 b\n"),
        "host " + std::string(254, 'h') + " ::1\n",
        std::string("forward sctp 127.0.0.1 1 1026\n"),
        std::string("forward tcp 128.0.0.1 1 1026\n"),
        std::string("forward tcp ::1 1 1026\n"),
        std::string("forward tcp 127.0.0.1 0 1026\n"),
        std::string("forward tcp 127.0.0.1 65536 1026\n"),
        std::string("forward tcp 127.0.0.1 1 1025\n"),
        std::string("forward tcp 127.0.0.1 1 65536\n"),
        std::string("forward tcp 127.0.0.1 1\n"),
        std::string("forward tcp 127.0.0.1 1 1026 2\n"),
        std::string("forward tcp  1 1026\n")}) {
    CAPTURE(lines);
    Parsed parsed(lines);
    CHECK_FALSE(parsed.ok);
    CHECK(parsed.why.stage == MSB_STAGE_BOOT);
    CHECK(parsed.why.code == EINVAL);
    CHECK(std::strncmp(parsed.why.text, "boot file", 9) == 0);
  }
}
