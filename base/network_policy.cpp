// SPDX-License-Identifier: Apache-2.0
#include "base/network_policy.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "base/fd.hpp"
#include "base/ip_text.hpp"
#include "base/socket_address.hpp"

namespace msb {

namespace {

constexpr std::size_t kMaxPolicyFile = 1 << 20;
constexpr std::size_t kMaxRule = 1024;
constexpr std::string_view kSpaces = " \t\r";

// What is not the public internet, by the registries of special-purpose addresses (RFC 6890): what
// they do not call globally reachable, multicast, and what carries an IPv4 address inside (6to4).
constexpr auto kNotPublic = std::to_array<std::string_view>({
    "0.0.0.0/8",        "10.0.0.0/8",      "100.64.0.0/10",  "127.0.0.0/8",    "169.254.0.0/16",
    "172.16.0.0/12",    "192.0.0.0/24",    "192.0.2.0/24",   "192.88.99.0/24", "192.168.0.0/16",
    "198.18.0.0/15",    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",    "2001::/23",
    "2001:db8::/32",    "2002::/16",       "3fff::/20",
    "168.63.129.16/32",  // what Azure has for 169.254.169.254
});
// And what is: of IPv6 the part that is given out, and IPv4 addresses behind a translator, which
// have to be public as such (RFC 6052).
constexpr auto kPublic = std::to_array<std::string_view>({"0.0.0.0/0", "2000::/3", "64:ff9b::/96"});

NetworkRule rule_for(bool allow, const IpPrefix& destination) {
  NetworkRule rule;
  rule.allow = allow;
  rule.destination = destination;
  return rule;
}

void add_public(NetworkPolicy& policy) {
  NetworkRule own;
  own.host = true;
  policy.add(own, "public: deny host");
  for (const std::string_view prefix : kNotPublic) {
    policy.add(rule_for(false, *parse_ip_prefix(prefix)), fmt::format("public: deny {}", prefix));
  }
  for (const std::string_view prefix : kPublic) {
    policy.add(rule_for(true, *parse_ip_prefix(prefix)), fmt::format("public: allow {}", prefix));
  }
  policy.dns = true;
}

void add_any(NetworkPolicy& policy) {
  policy.add(rule_for(true, {{4, {}}, 0}), "any");
  policy.add(rule_for(true, {{6, {}}, 0}), "any");
  policy.dns = true;
}

std::vector<std::string_view> split(std::string_view line, std::string_view separators) {
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t begin = line.find_first_not_of(separators);
    if (begin == std::string_view::npos) {
      return words;
    }
    line.remove_prefix(begin);
    const std::size_t end = std::min(line.find_first_of(separators), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

// What is between commas, also where that is nothing.
std::vector<std::string_view> split_list(std::string_view list) {
  std::vector<std::string_view> items;
  while (true) {
    const std::size_t comma = list.find(',');
    items.push_back(list.substr(0, comma));
    if (comma == std::string_view::npos) {
      return items;
    }
    list.remove_prefix(comma + 1);
  }
}

// Of IPv4 and IPv6 for "icmp"; nothing for what is no protocol.
std::optional<std::array<std::uint32_t, 2>> protocols_of(std::string_view word) {
  if (word == "tcp") {
    return {{IPPROTO_TCP, IPPROTO_TCP}};
  }
  if (word == "udp") {
    return {{IPPROTO_UDP, IPPROTO_UDP}};
  }
  if (word == "icmp") {
    return {{IPPROTO_ICMP, IPPROTO_ICMPV6}};
  }
  return std::nullopt;
}

// One line: [allow|deny] [tcp|udp|icmp] DESTINATION [PORT[-PORT][,...]]
class Line {
 public:
  Line(std::vector<std::string_view> words, std::string text, NetworkPolicy& policy)
      : words_(std::move(words)), text_(std::move(text)), policy_(policy) {}

  // Fails with what is wrong.
  Result<void> add() {
    NetworkRule rule;
    rule.allow = words_[0] == "allow";
    std::size_t at = 1;
    const auto protocols = at < words_.size() ? protocols_of(words_[at]) : std::nullopt;
    at += protocols ? 1 : 0;
    if (at == words_.size()) {
      return fail(
          "says not where to: an address, a prefix like 10.0.0.0/8, \"any\", \"host\" or \"dns\"");
    }
    const std::string_view destination = words_[at++];
    if (destination == "dns" && !protocols && at == words_.size()) {
      policy_.dns = rule.allow;
      return {};
    }
    std::vector<IpPrefix> prefixes;
    if (destination == "host") {
      rule.host = true;
      prefixes = {{{4, {}}, 0}, {{6, {}}, 0}};  // for the protocols' numbers
    } else if (destination == "any") {
      prefixes = {{{4, {}}, 0}, {{6, {}}, 0}};
    } else if (const auto prefix = parse_ip_prefix(destination)) {
      prefixes = {*prefix};
    } else {
      return fail(
          "has \"{}\" where an address, a prefix like 10.0.0.0/8, \"any\", \"host\" or \"dns\" "
          "belongs",
          destination);
    }
    std::vector<std::string_view> ports{"0-65535"};
    if (at < words_.size()) {
      if (!protocols || words_[1] == "icmp") {
        return fail("has ports, which only tcp and udp have");
      }
      ports = split_list(words_[at++]);
    }
    if (at < words_.size()) {
      return fail("goes on with \"{}\" where it should end", words_[at]);
    }
    if (policy_.rules.size() + prefixes.size() * ports.size() > kMaxNetworkRules) {
      return fail("makes it more than {} rules, of which each range of ports is one",
                  kMaxNetworkRules);
    }
    for (const IpPrefix& prefix : prefixes) {
      rule.destination = prefix;
      if (protocols) {
        rule.protocol = (*protocols)[prefix.address.family == 4 ? 0 : 1];
      }
      for (const std::string_view port : ports) {
        if (!set_ports(port, rule)) {
          return fail("has \"{}\" where a port like 443 or a range like 8000-8099 belongs", port);
        }
        policy_.add(rule, text_);
      }
    }
    return {};
  }

 private:
  static bool set_ports(std::string_view word, NetworkRule& rule) {
    const std::size_t dash = word.find('-');
    const auto first = parse_port(word.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : parse_port(word.substr(dash + 1));
    if (!first || !last || *first > *last) {
      return false;
    }
    rule.first_port = *first;
    rule.last_port = *last;
    return true;
  }

  const std::vector<std::string_view> words_;
  const std::string text_;
  NetworkPolicy& policy_;
};

Result<std::string> read_file(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status{};
  if (!file || ::fstat(file.get(), &status) != 0) {
    return fail_errno(errno,
                      "cannot read the policy \"{}\", which is neither none, group, public or any "
                      "nor a file",
                      path);
  }
  if (!S_ISREG(status.st_mode) || static_cast<std::size_t>(status.st_size) > kMaxPolicyFile) {
    return fail("the policy \"{}\" is no file of at most {} bytes", path, kMaxPolicyFile);
  }
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t got = 0;
  while (got < text.size()) {
    const ssize_t count = ::read(file.get(), text.data() + got, text.size() - got);
    if (count < 0) {
      return fail_errno(errno, "cannot read the policy \"{}\"", path);
    }
    if (count == 0) {
      break;
    }
    got += static_cast<std::size_t>(count);
  }
  text.resize(got);
  return text;
}

}  // namespace

bool add_preset(std::string_view name, NetworkPolicy& policy) {
  if (name == "public") {
    add_public(policy);
  } else if (name == "any") {
    add_any(policy);
  } else {
    // Other sandboxes of a group are reached by name (--host), which is no network.
    return name == "none" || name == "group" || name == "local";
  }
  return true;
}

Result<NetworkPolicy> parse_policy(std::string_view text, std::string_view name) {
  NetworkPolicy policy;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view whole = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::vector<std::string_view> words = split(whole.substr(0, whole.find('#')), kSpaces);
    if (words.empty()) {
      continue;
    }
    Result<void> added;
    if (words[0] == "allow" || words[0] == "deny") {
      std::string said = fmt::format("{}:{}: {}", name, number, fmt::join(words, " "));
      added = Line(words, std::move(said), policy).add();
    } else if (words.size() != 1 || !add_preset(words[0], policy)) {
      added = fail(
          "begins with \"{}\" instead of allow, deny, or a preset (none, group, public, any) alone",
          words[0]);
    }
    if (!added) {
      return fail("{}, line {} {}", name, number, added.error().message);
    }
    if (policy.rules.size() > kMaxNetworkRules) {
      return fail("{} has more than {} rules, of which each range of ports is one", name,
                  kMaxNetworkRules);
    }
  }
  return policy;
}

Result<void> add_rule(std::string_view rule, NetworkPolicy& policy) {
  if (rule.size() > kMaxRule ||
      !std::ranges::all_of(rule, [](char letter) { return letter >= ' ' && letter <= '~'; })) {
    return fail("a rule has more than {} letters, or others than ASCII has", kMaxRule);
  }
  const std::vector<std::string_view> words = split(rule, kSpaces);
  if (words.empty() || (words[0] != "allow" && words[0] != "deny")) {
    return fail("the rule \"{}\" begins neither with allow nor with deny", rule);
  }
  if (auto added = Line(words, fmt::format("rule: {}", fmt::join(words, " ")), policy).add();
      !added) {
    return fail("the rule \"{}\" {}", rule, added.error().message);
  }
  return {};
}

Result<NetworkPolicy> read_policy(const std::string& word, std::span<const std::string> rules) {
  NetworkPolicy policy;
  if (!add_preset(word, policy)) {
    const auto text = read_file(word);
    auto parsed = text ? parse_policy(*text, word) : std::unexpected(text.error());
    if (!parsed) {
      return parsed;
    }
    policy = std::move(*parsed);
  }
  NetworkPolicy whole{.dns = policy.dns};  // unless a rule says otherwise
  for (const std::string& rule : rules) {
    if (auto added = add_rule(rule, whole); !added) {
      return std::unexpected(added.error());
    }
  }
  for (std::size_t i = 0; i < policy.rules.size(); ++i) {
    whole.add(policy.rules[i], std::move(policy.texts[i]));
  }
  if (whole.rules.size() > kMaxNetworkRules) {
    return fail(
        "{} rules before the policy {} make more than {}, of which each range of ports is one",
        rules.size(), word, kMaxNetworkRules);
  }
  return whole;
}

}  // namespace msb
