// SPDX-License-Identifier: Apache-2.0
#include "base/network_policy.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <string>

#include "base/fd.hpp"
#include "base/ip_text.hpp"

namespace msb {
namespace {

const std::array<IpAddress, 2> kHost{*parse_ip_address("198.51.0.7"), *parse_ip_address("2a00::7")};

// Whether a TCP connection to port 443 there would be allowed, by the first rule that matches.
bool reaches(const NetworkPolicy& policy, std::string_view address) {
  const auto destination = *parse_ip_address(address);
  const auto rule = std::ranges::find_if(policy.rules, [&](const NetworkRule& each) {
    const bool there = each.host ? std::ranges::find(kHost, destination) != kHost.end()
                                 : each.destination.contains(destination);
    return there && (each.protocol == NetworkRule::kAnyProtocol || each.protocol == 6) &&
           each.first_port <= 443 && 443 <= each.last_port;
  });
  return rule != policy.rules.end() && rule->allow;
}

NetworkPolicy preset(std::string_view name) {
  NetworkPolicy policy;
  REQUIRE(add_preset(name, policy));
  return policy;
}

std::string error_of(std::string_view text) {
  const auto policy = parse_policy(text, "file");
  return policy ? "" : policy.error().message;
}

TEST_CASE("public is what the registries call globally reachable, and none of this host's own") {
  const NetworkPolicy policy = preset("public");
  CHECK(policy.dns);
  CHECK(policy.rules.size() == policy.texts.size());
  for (const std::string_view address :
       {"1.1.1.1", "93.184.216.34", "198.51.0.8", "223.255.255.255", "2a00::8", "2606:4700::1111",
        "3ffe::1", "64:ff9b::101:101"}) {
    CAPTURE(address);
    CHECK(reaches(policy, address));
  }
  for (const std::string_view address : {"198.51.0.7",
                                         "2a00::7",
                                         "0.0.0.0",
                                         "10.0.0.1",
                                         "10.255.255.255",
                                         "100.64.0.1",
                                         "100.127.255.255",
                                         "127.0.0.1",
                                         "169.254.169.254",
                                         "172.16.0.1",
                                         "172.31.255.255",
                                         "192.0.0.8",
                                         "192.0.2.1",
                                         "192.88.99.1",
                                         "192.168.1.1",
                                         "198.18.0.1",
                                         "198.19.255.255",
                                         "198.51.100.1",
                                         "203.0.113.1",
                                         "224.0.0.1",
                                         "239.255.255.255",
                                         "240.0.0.1",
                                         "255.255.255.255",
                                         "::",
                                         "::1",
                                         "::ffff:1.1.1.1",
                                         "fc00::1",
                                         "fdff::1",
                                         "fe80::1",
                                         "febf::1",
                                         "fec0::1",
                                         "ff02::1",
                                         "2001:db8::1",
                                         "2001::1",
                                         "2002:7f00:1::",
                                         "3fff::1",
                                         "100::1",
                                         "5f00::1"}) {
    CAPTURE(address);
    CHECK_FALSE(reaches(policy, address));
  }
  CHECK(reaches(policy, "172.15.255.255"));
  CHECK(reaches(policy, "172.32.0.0"));
  CHECK(reaches(policy, "100.63.255.255"));
  CHECK(reaches(policy, "100.128.0.0"));
}

TEST_CASE("the other presets allow nothing, or everything") {
  for (const std::string_view name : {"none", "group", "local"}) {
    const NetworkPolicy policy = preset(name);
    CHECK(policy.rules.empty());
    CHECK_FALSE(policy.dns);
  }
  const NetworkPolicy any = preset("any");
  CHECK(any.dns);
  CHECK(reaches(any, "10.0.0.1"));
  CHECK(reaches(any, "198.51.0.7"));
  CHECK(reaches(any, "fd00::1"));
  NetworkPolicy policy;
  CHECK_FALSE(add_preset("publik", policy));
}

TEST_CASE("lines of a file become rules in their order, which remember where they stand") {
  const auto policy = parse_policy(
      "# a database\n"
      "allow tcp 10.0.0.5 5432,6000-6010   # and its metrics\n"
      "\n"
      "deny  any\t\n"
      "allow icmp 2001:db8::/32\r\n"
      "allow dns\n"
      "public",
      "file");
  REQUIRE(policy);
  REQUIRE(policy->rules.size() > 6);
  const NetworkRule& database = policy->rules[0];
  CHECK(database.allow);
  CHECK(database.destination == *parse_ip_prefix("10.0.0.5/32"));
  CHECK(database.protocol == 6);
  CHECK(database.first_port == 5432);
  CHECK(database.last_port == 5432);
  CHECK(policy->rules[1].first_port == 6000);
  CHECK(policy->rules[1].last_port == 6010);
  CHECK(policy->texts[1] == "file:2: allow tcp 10.0.0.5 5432,6000-6010");
  CHECK_FALSE(policy->rules[2].allow);
  CHECK(policy->rules[2].destination.address.family == 4);
  CHECK(policy->rules[3].destination.address.family == 6);
  CHECK(policy->texts[3] == "file:4: deny any");
  CHECK(policy->rules[4].protocol == 58);  // ICMP's number in IPv6
  CHECK(policy->rules[4].first_port == 0);
  CHECK(policy->dns);
}

TEST_CASE("names are resolved when a line says so, the last one") {
  CHECK_FALSE(parse_policy("allow any", "file")->dns);
  CHECK(parse_policy("allow dns", "file")->dns);
  CHECK_FALSE(parse_policy("public\ndeny dns", "file")->dns);
  CHECK(parse_policy("", "file")->rules.empty());
}

TEST_CASE("a line that is none is named by its number and what is wrong with it") {
  for (const auto& [text, words] :
       std::initializer_list<std::pair<std::string_view, std::string_view>>{
           {"permit any", "file, line 1 begins with \"permit\""},
           {"\nallow", "file, line 2 says not where to"},
           {"allow tcp", "says not where to"},
           {"allow 10.0.0.0/33", "has \"10.0.0.0/33\" where an address"},
           {"allow 10.0.0", "where an address"},
           {"allow ::/129", "where an address"},
           {"allow 10.0.0.0/-1", "where an address"},
           {"allow 10.0.0.0/08", "where an address"},
           {"allow sctp 10.0.0.1", "has \"sctp\" where an address"},
           {"allow 10.0.0.1 80", "has ports, which only tcp and udp have"},
           {"allow icmp any 80", "has ports"},
           {"allow tcp any 0x50", "has \"0x50\" where a port"},
           {"allow tcp any 65536", "where a port"},
           {"allow tcp any 90-80", "where a port"},
           {"allow tcp any 80-", "where a port"},
           {"allow tcp any 80 90", "goes on with \"90\""},
           {"allow dns tcp", "where an address"},
           {"public any", "begins with \"public\""}}) {
    CAPTURE(text);
    CAPTURE(error_of(text));
    CHECK(error_of(text).find(words) != std::string::npos);
  }
  std::string many;
  for (int i = 0; i < 129; ++i) {
    many += "allow any\n";  // two rules each
  }
  CHECK(error_of(many).find("more than 256 rules") != std::string::npos);
  CHECK_FALSE(error_of(std::string("allow 10.0.0.1\0", 15)).empty());
}

TEST_CASE("a list of ports without a port is an error, and not a rule that is left out") {
  for (const std::string ports : {",", ",,", "443,", ",443", "443,,80"}) {
    CAPTURE(ports);
    CHECK(error_of("allow any\ndeny tcp any " + ports).starts_with("file, line 2 has \""));
  }
}

TEST_CASE("a line of more ports than there can be rules ends at once") {
  std::string line = "allow tcp any 1";
  while (line.size() < 1 << 20) {
    line += ",1";
  }
  CHECK(error_of(line).starts_with("file, line 1 makes it more than 256 rules"));
}

TEST_CASE("a policy is a preset or a file") {
  CHECK(read_policy("any", {}));
  std::string path = "/tmp/msb-policy-XXXXXX";
  const Fd made(::mkstemp(path.data()));
  REQUIRE(made);
  std::ofstream(path) << "allow tcp any 443\n";
  const auto policy = read_policy(path, {});
  REQUIRE(policy);
  CHECK(policy->rules.size() == 2);
  std::remove(path.c_str());
  CHECK_FALSE(read_policy(path, {}));
  CHECK_FALSE(read_policy("/", {}));
  CHECK_FALSE(read_policy("/dev/zero", {}));
}

TEST_CASE("rules decide before the policy, in their order") {
  const std::vector<std::string> rules{"allow tcp 10.0.0.5 443", "deny any", "deny dns"};
  const auto policy = read_policy("public", rules);
  REQUIRE(policy);
  CHECK(reaches(*policy, "10.0.0.5"));
  CHECK_FALSE(reaches(*policy, "1.1.1.1"));
  CHECK_FALSE(policy->dns);
  CHECK(policy->texts[0] == "rule: allow tcp 10.0.0.5 443");
  CHECK(policy->rules.size() == policy->texts.size());
  CHECK(read_policy("public", {})->dns);
  const std::vector<std::string> names{"allow dns"};
  CHECK(read_policy("none", names)->dns);
  CHECK(read_policy("none", names)->allows_anything());
  CHECK(policy->allows_anything());
  CHECK_FALSE(
      read_policy("none", std::vector<std::string>{"deny any", "deny dns"})->allows_anything());
}

TEST_CASE("what is no rule is named, with what is wrong with it") {
  NetworkPolicy policy;
  for (const auto& [rule, words] :
       std::initializer_list<std::pair<std::string_view, std::string_view>>{
           {"", "the rule \"\" begins neither with allow nor with deny"},
           {"public", "begins neither"},
           {"# no", "begins neither"},
           {"allow", "the rule \"allow\" says not where to"},
           {"allow any\nallow 10.0.0.1", "a rule has more than"},
           {"deny any # no", "has ports"}}) {
    CAPTURE(rule);
    const auto added = add_rule(rule, policy);
    REQUIRE_FALSE(added);
    CAPTURE(added.error().message);
    CHECK(added.error().message.contains(words));
    CHECK_FALSE(added.error().message.contains('\n'));
  }
  CHECK(policy.rules.empty());
  const std::vector<std::string> many(129, "allow any");  // two rules each
  CHECK(read_policy("none", many).error().message.contains("more than 256 rules"));
}

}  // namespace
}  // namespace msb
