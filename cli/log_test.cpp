// SPDX-License-Identifier: Apache-2.0
#include "cli/log.hpp"

#include <doctest/doctest.h>

namespace msb::cli {
namespace {

constexpr std::int64_t kNow = 1'800'000'000'000;

TEST_CASE("since is how long ago, or a time") {
  CHECK(parse_since("90", kNow) == kNow - 90'000);
  CHECK(parse_since("90s", kNow) == kNow - 90'000);
  CHECK(parse_since("10m", kNow) == kNow - 600'000);
  CHECK(parse_since("2h", kNow) == kNow - 7'200'000);
  CHECK(parse_since("3d", kNow) == kNow - 259'200'000);
  CHECK(parse_since("1970-01-01T00:00:02Z", kNow) == 2000);
  CHECK(parse_since("1970-01-01T01:00:02+01:00", kNow) == 2000);
}

TEST_CASE("what is neither is refused") {
  for (const std::string text : {"", "m", "10 m", "10w", "-1", "1.5h", "yesterday",
                                 "9223372036854775807d", "99999999999999999999"}) {
    CAPTURE(text);
    const auto parsed = parse_since(text, kNow);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().message.find("--since") != std::string::npos);
  }
}

}  // namespace
}  // namespace msb::cli
