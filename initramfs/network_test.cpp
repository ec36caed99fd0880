// SPDX-License-Identifier: Apache-2.0
// The messages, and what the kernel makes of them: in a network of the test's own.
extern "C" {
#include "initramfs/network.h"
}

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "initramfs/test_tunnel.hpp"
#include "protocol/msb_exec.h"

using namespace msb::test;

namespace {

constexpr uint8_t kMac[BOOT_MAC_SIZE] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
constexpr uint8_t kGatewayMac[BOOT_MAC_SIZE] = {0x02, 0, 0, 0, 0, 0x01};

void set_address(boot_card& card, const char* text, uint8_t prefix) {
  bool ipv4 = std::strchr(text, ':') == nullptr;
  boot_address& address = card.addresses[ipv4 ? BOOT_IPV4 : BOOT_IPV6];
  address.present = true;
  address.prefix = prefix;
  REQUIRE(inet_pton(ipv4 ? AF_INET : AF_INET6, text, address.bytes) == 1);
}

void set_gateway(boot_card& card, const char* text) {
  bool ipv4 = std::strchr(text, ':') == nullptr;
  boot_gateway& gateway = card.gateways[ipv4 ? BOOT_IPV4 : BOOT_IPV6];
  gateway.present = true;
  gateway.has_mac = true;
  std::memcpy(gateway.mac, kGatewayMac, sizeof kGatewayMac);
  REQUIRE(inet_pton(ipv4 ? AF_INET : AF_INET6, text, gateway.bytes) == 1);
}

boot_card plain_card() {
  boot_card card{};
  card.present = true;
  std::memcpy(card.mac, kMac, sizeof kMac);
  card.mtu = 1400;
  return card;
}

std::vector<uint16_t> types_of(const netlink_batch& batch) {
  std::vector<uint16_t> types;
  for (size_t next = 0; next < batch.length;) {
    nlmsghdr header;
    std::memcpy(&header, batch.bytes + next, sizeof header);
    CHECK((header.nlmsg_flags & (NLM_F_REQUEST | NLM_F_ACK)) == (NLM_F_REQUEST | NLM_F_ACK));
    CHECK(header.nlmsg_seq == types.size());
    types.push_back(header.nlmsg_type);
    next += NLMSG_ALIGN(header.nlmsg_len);
  }
  CHECK(types.size() == batch.count);
  CHECK_FALSE(batch.overflowed);
  return types;
}

std::vector<uint16_t> configured(const boot_card& card, bool has_ipv6) {
  netlink_batch batch{};
  network_link link{.index = 2, .named = true, .has_ipv6 = has_ipv6};
  network_configure(&card, &link, &batch);
  return types_of(batch);
}

using Types = std::vector<uint16_t>;

std::string content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool has(const std::string& path, const std::string& text) {
  if (content(path).find(text) != std::string::npos) return true;
  std::fprintf(stderr, "%s has no \"%s\":\n%s", path.c_str(), text.c_str(), content(path).c_str());
  return false;
}

/// Makes a link, with that MAC address. Returns an errno.
int make_link(const char* name, const char* kind, const uint8_t* mac) {
  netlink_batch batch{};
  ifinfomsg body{};
  netlink_begin(&batch, "", RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
  netlink_attribute(&batch, IFLA_IFNAME, name, std::strlen(name) + 1);
  netlink_attribute(&batch, IFLA_ADDRESS, mac, BOOT_MAC_SIZE);
  size_t info = netlink_begin_nest(&batch, IFLA_LINKINFO);
  netlink_attribute(&batch, IFLA_INFO_KIND, kind, std::strlen(kind));
  netlink_end_nest(&batch, info);
  int socket = netlink_open(NETLINK_ROUTE);
  const char* step = nullptr;
  int code = netlink_send(socket, &batch);
  if (code == 0) code = netlink_receive_acknowledgements(socket, &batch, &step);
  close(socket);
  return code;
}

bool bring_up(const char* name) {
  Socket any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, name);
  request.ifr_flags = IFF_UP;
  return ioctl(any.get(), SIOCSIFFLAGS, &request) == 0;
}

enum Outcome { kPassed = 0, kNoLinks = 77 };

/// Like a network card: its other end is up.
Outcome make_card(const char* name) {
  int code = make_link(name, "veth", kMac);
  if (code != 0) return kNoLinks;
  return bring_up("veth0") ? kPassed : kNoLinks;
}

bool is_network_possible() {
  if (geteuid() == 0) return true;
  MESSAGE("skipped: only root can have a network of its own");
  return false;
}

void check_outcome(int outcome) {
  if (outcome == kNoLinks) {
    MESSAGE("skipped: this kernel has no veth");
  } else {
    CHECK(outcome == kPassed);
  }
}

}  // namespace

TEST_CASE("network_messages_come_in_the_order_that_the_kernel_needs") {
  boot_card card = plain_card();
  CHECK(configured(card, false) == Types{RTM_NEWLINK});
  CHECK(configured(card, true) == Types{RTM_NEWLINK, RTM_NEWLINK});
  set_address(card, "192.0.2.2", 24);
  set_gateway(card, "192.0.2.1");
  CHECK(configured(card, false) == Types{RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH});
  // Out of the prefix: there has to be a route to it first.
  set_gateway(card, "198.51.100.1");
  CHECK(configured(card, false) ==
        Types{RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWROUTE, RTM_NEWNEIGH});
  card = plain_card();
  set_address(card, "2001:db8::2", 64);
  set_gateway(card, "fe80::1");
  card.gateways[BOOT_IPV6].has_mac = false;
  CHECK(configured(card, true) ==
        Types{RTM_NEWLINK, RTM_NEWLINK, RTM_NEWADDR, RTM_NEWADDR, RTM_NEWROUTE});
}

TEST_CASE("netlink_batch_without_room_is_not_sent") {
  netlink_batch batch{};
  std::vector<uint8_t> body(NETLINK_BATCH_MAX);
  netlink_begin(&batch, "too much", RTM_NEWLINK, 0, body.data(), body.size());
  CHECK(batch.overflowed);
  CHECK(netlink_send(-1, &batch) == EMSGSIZE);
}

TEST_CASE("netlink_attributes_of_hostile_length_are_none") {
  alignas(4) uint8_t bytes[12] = {8, 0, 1, 0, 42, 0, 0, 0, 4, 0, 2, 0};
  REQUIRE(netlink_find(bytes, sizeof bytes, 1) != nullptr);
  CHECK(netlink_value_length(netlink_find(bytes, sizeof bytes, 1)) == 4);
  CHECK(netlink_find(bytes, sizeof bytes, 2) != nullptr);
  CHECK(netlink_find(bytes, sizeof bytes, 3) == nullptr);
  CHECK(netlink_find(bytes, 7, 1) == nullptr);
  bytes[0] = 3;
  CHECK(netlink_find(bytes, sizeof bytes, 2) == nullptr);
  bytes[0] = 255;
  CHECK(netlink_find(bytes, sizeof bytes, 1) == nullptr);
}

TEST_CASE("network_card_is_up_with_addresses_that_can_be_used_at_once") {
  if (!is_network_possible()) return;
  check_outcome(in_own_network([]() -> int {
    if (make_card("eth0") != kPassed) return kNoLinks;
    boot_card card = plain_card();
    set_address(card, "192.0.2.2", 24);
    set_address(card, "2001:db8::2", 64);
    set_gateway(card, "192.0.2.1");
    set_gateway(card, "2001:db8::1");
    failure why{};
    if (!network_start(&card, &why)) {
      std::fprintf(stderr, "%s\n", why.text);
      return 1;
    }
    if (content("/proc/sys/net/ipv6/conf/eth0/accept_ra") != "0\n") return 2;
    // Not tentative (0x40): nobody detects duplicates of those two, and there is no third.
    const std::string addresses = "/proc/net/if_inet6";
    if (!has(addresses, "20010db8000000000000000000000002 ")) return 3;
    if (!has(addresses, "fe80000000000000505400fffe123456 ")) return 4;
    std::istringstream lines(content(addresses));
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string address, index, prefix, scope, flags, name;
      words >> address >> index >> prefix >> scope >> flags >> name;
      if (name == "eth0" && flags != "82") return 5;
    }
    // eth0, 0.0.0.0 by 192.0.2.1; 192.0.2.0/24
    if (!has("/proc/net/route", "eth0\t00000000\t010200C0\t0003")) return 6;
    if (!has("/proc/net/route", "eth0\t000200C0\t00000000\t0001")) return 7;
    if (!has("/proc/net/ipv6_route",
             "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
             "20010db8000000000000000000000001 ")) {
      return 8;
    }
    if (!has("/proc/net/arp", "192.0.2.1        0x1         0x6         02:00:00:00:00:01")) {
      return 9;
    }
    // Sending from either address needs nobody's answer.
    Socket any(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in6 own{};
    own.sin6_family = AF_INET6;
    std::memcpy(&own.sin6_addr, card.addresses[BOOT_IPV6].bytes, 16);
    if (bind(any.get(), reinterpret_cast<sockaddr*>(&own), sizeof own) != 0) return 10;
    Socket interface(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "eth0");
    if (ioctl(interface.get(), SIOCGIFMTU, &request) != 0 || request.ifr_mtu != 1400) return 11;
    if (ioctl(interface.get(), SIOCGIFBRDADDR, &request) != 0) return 12;
    sockaddr_in broadcast{};
    std::memcpy(&broadcast, &request.ifr_broadaddr, sizeof broadcast);
    return ntohl(broadcast.sin_addr.s_addr) == 0xc00002ff ? kPassed : 13;
  }));
}

TEST_CASE("network_gateway_out_of_the_prefix_is_reached_by_a_route_of_its_own") {
  if (!is_network_possible()) return;
  check_outcome(in_own_network([]() -> int {
    if (make_card("other") != kPassed) return kNoLinks;
    boot_card card = plain_card();
    set_address(card, "192.0.2.2", 32);
    set_address(card, "2001:db8::2", 128);
    set_gateway(card, "198.51.100.1");
    set_gateway(card, "2001:db8:1::1");
    failure why{};
    if (!network_start(&card, &why)) {
      std::fprintf(stderr, "%s\n", why.text);
      return 1;
    }
    // By its MAC address; it gets its name.
    if (!has("/proc/net/route", "eth0\t016433C6\t00000000\t0005")) return 2;
    if (!has("/proc/net/route", "eth0\t00000000\t016433C6\t0003")) return 3;
    return has("/proc/net/ipv6_route", "20010db8000100000000000000000001 80 ") ? kPassed : 4;
  }));
}

TEST_CASE("network_without_a_card_is_fine_unless_the_boot_file_wants_one") {
  if (!is_network_possible()) return;
  CHECK(in_own_network([] {
          boot_card card{};
          failure why{};
          if (!network_start(&card, &why)) return 1;
          card = plain_card();
          if (network_start(&card, &why)) return 2;
          if (why.stage != MSB_STAGE_BOOT || why.code != ENODEV) return 3;
          return std::string(why.text).find("52:54:00:12:34:56") != std::string::npos ? 0 : 4;
        }) == 0);
}

TEST_CASE("network_step_that_the_kernel_refuses_is_named") {
  if (!is_network_possible()) return;
  check_outcome(in_own_network([]() -> int {
    if (make_card("eth0") != kPassed) return kNoLinks;
    boot_card card = plain_card();
    set_address(card, "224.0.0.1", 24);
    set_address(card, "ff02::2", 64);
    failure why{};
    if (network_start(&card, &why)) return 1;
    return std::string(why.text).find("cannot give the network card its address") == 0 ? kPassed
                                                                                       : 2;
  }));
}
