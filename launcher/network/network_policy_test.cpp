// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/network_policy.hpp"

#include <doctest/doctest.h>

#include <string>

namespace msb::launcher {
namespace {

std::string error_of(const std::string& text) {
  const auto policy = parse_policy(text, "policy", {});
  REQUIRE_FALSE(policy);
  return policy.error().message;
}

TEST_CASE("a list of ports without a port is an error, and not a rule that is left out") {
  for (const std::string ports : {",", ",,", "443,", ",443", "443,,80"}) {
    CAPTURE(ports);
    CHECK(error_of("allow any\ndeny tcp any " + ports + "\n").starts_with("policy, line 2 has \""));
  }
}

TEST_CASE("a line of more ports than there can be rules ends at once") {
  std::string line = "allow tcp any 1";
  while (line.size() < 1 << 20) {
    line += ",1";
  }
  CHECK(error_of(line).starts_with("policy, line 1 makes it more than 256 rules"));
}

}  // namespace
}  // namespace msb::launcher
