// SPDX-License-Identifier: Apache-2.0
#include "server/problem.hpp"

#include <array>
#include <cstddef>

namespace msb::server {

const ReasonInfo& info(Reason reason) {
  static constexpr std::array<ReasonInfo, 16> kReasons = {{
      {400, "invalid", 2001},
      {401, "no_key", 1001},
      {401, "bad_key", 1004},
      {401, "expired_key", 1005},
      {403, "forbidden", 3001},
      {403, "denied_in_sandbox", 5001},
      {404, "not_found", 4001},
      {405, "method_not_allowed", 4001},
      {409, "conflict", 2001},
      {413, "too_large", 2001},
      {408, "slow", 2001},
      {429, "full", 3002},
      {502, "failed", 5001},
      {504, "timeout", 5001},
      {503, "unavailable", 5001},
      {500, "internal", 5002},
  }};
  return kReasons.at(static_cast<std::size_t>(reason));
}

Problem about_to_end() {
  return {Reason::kUnavailable, "the server is about to end", std::nullopt};
}

}  // namespace msb::server
