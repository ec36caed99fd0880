// SPDX-License-Identifier: Apache-2.0
#include "virtio/net/policy.hpp"

#include <algorithm>

namespace msb::virtio {

namespace {

constexpr IpPrefix kTranslated{{6, {0x00, 0x64, 0xff, 0x9b}}, 96};

IpAddress embedded_ipv4(const IpAddress& address) {
  IpAddress embedded{.family = 4, .bytes = {}};
  std::copy_n(address.bytes.begin() + 12, 4, embedded.bytes.begin());
  return embedded;
}

}  // namespace

bool Policy::matches(const NetworkRule& rule, const IpAddress& destination, std::uint8_t protocol,
                     std::optional<std::uint16_t> port) const {
  if (rule.protocol != NetworkRule::kAnyProtocol && rule.protocol != protocol) {
    return false;
  }
  const bool all_ports = rule.first_port == 0 && rule.last_port == 65535;
  if (!all_ports && (!port || *port < rule.first_port || *port > rule.last_port)) {
    return false;
  }
  return rule.host ? std::ranges::find(host_, destination) != host_.end()
                   : rule.destination.contains(destination);
}

Policy::Verdict Policy::first_match(const IpAddress& destination, std::uint8_t protocol,
                                    std::optional<std::uint16_t> port) const {
  for (std::uint32_t i = 0; i < rules_.size(); ++i) {
    if (matches(rules_[i], destination, protocol, port)) {
      return {rules_[i].allow, i};
    }
  }
  return {};
}

Policy::Verdict Policy::decide(const IpAddress& destination, std::uint8_t protocol,
                               std::optional<std::uint16_t> port) {
  std::size_t place = protocol + 31U * port.value_or(0);
  for (const std::uint8_t byte : destination.bytes) {
    place = place * 31 + byte;
  }
  Remembered& last = remembered_[place % remembered_.size()];
  if (last.destination != destination || last.protocol != protocol || last.port != port) {
    last = {destination, protocol, port, judge(destination, protocol, port)};
  }
  return last.verdict;
}

Policy::Verdict Policy::judge(const IpAddress& destination, std::uint8_t protocol,
                              std::optional<std::uint16_t> port) const {
  if (kTranslated.contains(destination)) {
    const Verdict verdict = first_match(embedded_ipv4(destination), protocol, port);
    if (!verdict.allowed) {
      return verdict;
    }
  }
  return first_match(destination, protocol, port);
}

bool Policy::allows_anything() const {
  return std::ranges::any_of(rules_, &NetworkRule::allow);
}

}  // namespace msb::virtio
