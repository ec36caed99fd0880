// SPDX-License-Identifier: Apache-2.0
// Which destinations a guest may send to: an ordered list of rules.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/network_config.hpp"

namespace msb::virtio {

class Policy {
 public:
  // `host`: the addresses that rules for the host itself mean.
  Policy(std::vector<NetworkRule> rules, std::vector<IpAddress> host)
      : rules_(std::move(rules)), host_(std::move(host)) {}

  void set_host(std::vector<IpAddress> host) {
    host_ = std::move(host);
    remembered_ = {};
  }

  struct Verdict {
    bool allowed = false;
    std::optional<std::uint32_t> rule;  // that decided, counted from 0; none: no rule matched
  };
  // `port` is the destination's, of TCP and UDP only; other packets match rules for all ports.
  // An IPv6 address that stands for an IPv4 one (RFC 6052, the prefix 64:ff9b::/96) has to be
  // allowed as that as well.
  [[nodiscard]] Verdict decide(const IpAddress& destination, std::uint8_t protocol,
                               std::optional<std::uint16_t> port);

  // Whether there is any destination at all.
  [[nodiscard]] bool allows_anything() const;

 private:
  [[nodiscard]] Verdict judge(const IpAddress& destination, std::uint8_t protocol,
                              std::optional<std::uint16_t> port) const;
  [[nodiscard]] Verdict first_match(const IpAddress& destination, std::uint8_t protocol,
                                    std::optional<std::uint16_t> port) const;

  [[nodiscard]] bool matches(const NetworkRule& rule, const IpAddress& destination,
                             std::uint8_t protocol, std::optional<std::uint16_t> port) const;

  std::vector<NetworkRule> rules_;
  std::vector<IpAddress> host_;

  // What was decided lately, so that the packets of a connection do not go through all rules each:
  // at a place that the question leads to, where another one may take it. Family 0: nothing yet.
  struct Remembered {
    IpAddress destination{.family = 0, .bytes = {}};
    std::uint8_t protocol = 0;
    std::optional<std::uint16_t> port;
    Verdict verdict;
  };
  std::array<Remembered, 256> remembered_;
};

}  // namespace msb::virtio
