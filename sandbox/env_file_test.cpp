// SPDX-License-Identifier: Apache-2.0
#include "sandbox/env_file.hpp"

#include <doctest/doctest.h>

namespace msb::sandbox {
namespace {

using Words = std::vector<std::string>;

TEST_CASE("lines of a file of variables, with what may stand around them") {
  const auto variables = parse_env_file(
      "# a comment\n\nA=1\n  export B = two words \r\nC=\"quoted\"\nD='x'\nE=\nF=a=b", "vars");
  REQUIRE(variables);
  CHECK(*variables == Words{"A=1", "B=two words", "C=quoted", "D=x", "E=", "F=a=b"});
}

TEST_CASE("a name without a value is refused with its line") {
  const auto variables = parse_env_file("A=1\nHOME\n", "vars");
  REQUIRE_FALSE(variables);
  CHECK(variables.error().message.starts_with("vars:2: "));
  CHECK_FALSE(parse_env_file("=1\n", "vars"));
  CHECK_FALSE(parse_env_file(std::string_view("A=\0b\n", 5), "vars"));
}

}  // namespace
}  // namespace msb::sandbox
