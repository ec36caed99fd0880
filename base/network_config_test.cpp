// SPDX-License-Identifier: Apache-2.0
#include "base/network_config.hpp"

#include <doctest/doctest.h>

#include <string>

#include "base/machine_config.hpp"
#include "base/network_denial.hpp"

namespace msb {
namespace {

constexpr IpAddress kTen{4, {10, 1, 2, 3}};

MachineConfig example() {
  MachineConfig config;
  config.memory_mib = 256;
  config.vcpus = 1;
  config.network.backend = static_cast<std::uint32_t>(NetworkBackend::kStream);
  config.network.descriptor = 3;
  config.network.mac = {2, 1, 2, 3, 4, 255};
  config.network.mtu = 65520;
  config.network.addresses = {{kTen, 24}, {{6, {0xfd, 1}}, 64}};
  config.network.rules = {{true, false, {kTen, 8}, 6, 80, 90}, {false, true, {{6, {}}, 0}}};
  config.network.host_addresses = {kTen};
  config.network.send_rate = 1ULL << 40;
  return config;
}

TEST_CASE("a prefix contains the addresses that begin with it and no others") {
  CHECK(IpPrefix{kTen, 0}.contains({4, {255, 255, 255, 255}}));
  CHECK(IpPrefix{kTen, 8}.contains({4, {10, 255, 0, 0}}));
  CHECK_FALSE(IpPrefix{kTen, 8}.contains({4, {11}}));
  CHECK(IpPrefix{kTen, 30}.contains({4, {10, 1, 2, 0}}));
  CHECK_FALSE(IpPrefix{kTen, 31}.contains({4, {10, 1, 2, 1}}));
  CHECK(IpPrefix{kTen, 32}.contains(kTen));
  CHECK_FALSE(IpPrefix{kTen, 0}.contains({6, {10, 1, 2, 3}}));
  CHECK(IpPrefix{{6, {0xfe, 0x80}}, 10}.contains({6, {0xfe, 0xbf}}));
  CHECK_FALSE(IpPrefix{{6, {0xfe, 0x80}}, 10}.contains({6, {0xfe, 0xc0}}));
}

TEST_CASE("a network's configuration survives the way through JSON") {
  const MachineConfig config = example();
  const auto read = MachineConfig::from_json(config.to_json());
  REQUIRE(read);
  CHECK(read->network.descriptor == 3);
  CHECK(read->network.mac == config.network.mac);
  CHECK(read->network.mtu == 65520);
  CHECK(read->network.addresses == config.network.addresses);
  CHECK(read->network.rules == config.network.rules);
  CHECK(read->network.host_addresses == config.network.host_addresses);
  CHECK(read->network.send_rate == 1ULL << 40);
}

TEST_CASE("networks that cannot be are refused") {
  const auto refused = [](auto change) {
    MachineConfig config = example();
    change(config.network);
    return !MachineConfig::from_json(config.to_json());
  };
  CHECK(refused([](NetworkConfig& network) { network.backend = 3; }));
  CHECK(refused([](NetworkConfig& network) { network.mtu = kMinMtu - 1; }));
  CHECK(refused([](NetworkConfig& network) { network.mtu = kMaxMtu + 1; }));
  CHECK(refused([](NetworkConfig& network) { network.addresses[0].length = 33; }));
  CHECK(refused([](NetworkConfig& network) { network.addresses[0].address.family = 5; }));
  CHECK(refused([](NetworkConfig& network) { network.rules[1].destination.length = 129; }));
  CHECK(refused([](NetworkConfig& network) { network.rules[0].protocol = 257; }));
  CHECK(refused([](NetworkConfig& network) { network.rules[0].last_port = 65536; }));
  CHECK(refused([](NetworkConfig& network) { network.rules[0].first_port = 91; }));
  CHECK(refused([](NetworkConfig& network) { network.rules.resize(kMaxNetworkRules + 1); }));
}

TEST_CASE("as many rules as there may be fit into a message") {
  MachineConfig config = example();
  config.network.rules.assign(
      kMaxNetworkRules,
      {false,
       false,
       {{6, {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}}, 128},
       255,
       65535,
       65535});
  CHECK(config.to_json().size() < 50'000);
}

TEST_CASE(
    "a host's addresses survive the way through their text, and nothing else is taken for them") {
  const std::vector<IpAddress> addresses{kTen, {6, {0x2a}}};
  CHECK(host_addresses_from(host_addresses_text(addresses)) == addresses);
  CHECK_FALSE(host_addresses_from("").has_value());
  CHECK_FALSE(host_addresses_from(host_addresses_text({{5, {}}})).has_value());
  for (const char* const text :
       {"", "4", "40a01020", "40a0102030", "40a01020g", "6fd", "x0a010203"}) {
    CAPTURE(text);
    CHECK_FALSE(host_addresses_from(fmt::format("{{\"addresses\":[\"{}\"]}}", text)).has_value());
  }
  CHECK(host_addresses_from("{\"addresses\":[\"40a010203\"]}") == std::vector{kTen});
  CHECK_FALSE(
      host_addresses_from(host_addresses_text(std::vector<IpAddress>(kMaxHostAddresses + 1)))
          .has_value());
}

TEST_CASE("a denial survives the way through its text, and nothing else is taken for one") {
  NetworkDenial denial;
  denial.reason = NetworkDenial::Reason::kNowhere;
  denial.rule = 7;
  denial.protocol = 17;
  denial.destination = {6, {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
  denial.source_port = 1;
  denial.destination_port = 65535;
  const std::string text = denial.to_text();
  const auto read = NetworkDenial::from_text(text);
  REQUIRE(read);
  CHECK(read->reason == denial.reason);
  CHECK(read->rule == denial.rule);
  CHECK(read->protocol == 17);
  CHECK(read->destination == denial.destination);
  CHECK(read->destination_port == 65535);
  CHECK_FALSE(NetworkDenial::from_text("").has_value());
  CHECK_FALSE(NetworkDenial::from_text(text + "0").has_value());
  CHECK_FALSE(NetworkDenial::from_text(text.substr(0, text.size() - 1)).has_value());
  CHECK_FALSE(NetworkDenial::from_text("5" + text.substr(1)).has_value());
  denial.rule.reset();
  CHECK_FALSE(NetworkDenial::from_text(denial.to_text())->rule.has_value());
}

}  // namespace
}  // namespace msb
