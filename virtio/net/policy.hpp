// SPDX-License-Identifier: Apache-2.0
// Which destinations a guest may send to: an ordered list of rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/network_config.hpp"

namespace msb::virtio {

class Policy {
 public:
  explicit Policy(std::vector<NetworkRule> rules) : rules_(std::move(rules)) {}

  struct Verdict {
    bool allowed = false;
    std::optional<std::uint32_t> rule;  // that decided, counted from 0; none: no rule matched
  };
  // `port` is the destination's, of TCP and UDP only; other packets match rules for all ports.
  // An IPv6 address that stands for an IPv4 one (RFC 6052, the prefix 64:ff9b::/96) has to be
  // allowed as that as well.
  [[nodiscard]] Verdict decide(const IpAddress& destination, std::uint8_t protocol,
                               std::optional<std::uint16_t> port) const;

  // Whether there is any destination at all.
  [[nodiscard]] bool allows_anything() const;

 private:
  [[nodiscard]] Verdict first_match(const IpAddress& destination, std::uint8_t protocol,
                                    std::optional<std::uint16_t> port) const;

  std::vector<NetworkRule> rules_;
};

}  // namespace msb::virtio
