// SPDX-License-Identifier: Apache-2.0
// A packet of a guest's that was not let out, as the machine process tells the launcher.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/network_config.hpp"
#include "base/result.hpp"

namespace msb {

struct NetworkDenial {
  enum class Reason : std::uint32_t {
    kRule = 0,  // of the policy, or that there is none for it
    kNowhere =
        1,  // no network has the address: 127.0.0.1 and the like, which a proxy takes for its own
    kSource = 2,    // it says that it comes from somebody else
    kFragment = 3,  // of nothing that was let out, or one that overlaps the headers
    kUnclear = 4,   // its headers are such that not all receivers read them alike
  };

  Reason reason = Reason::kRule;
  std::optional<std::uint32_t> rule;  // of NetworkConfig, counted from 0
  std::uint32_t protocol = 0;         // of IP
  IpAddress destination;
  std::uint32_t source_port = 0;  // of TCP and UDP
  std::uint32_t destination_port = 0;

  [[nodiscard]] std::string to_text() const;
  // Fails on anything else: the machine process is not trusted.
  static Result<NetworkDenial> from_text(std::string_view text);
};

}  // namespace msb
