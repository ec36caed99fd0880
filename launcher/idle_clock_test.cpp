// SPDX-License-Identifier: Apache-2.0
#include "launcher/idle_clock.hpp"

#include <doctest/doctest.h>

namespace msb::launcher {
namespace {

using std::chrono::seconds;

constexpr IdleClock::Time kStart{};

TEST_CASE("the limit counts from what happened last") {
  IdleClock clock(seconds(10), kStart);
  CHECK(clock.deadline() == kStart + seconds(10));
  CHECK_FALSE(clock.is_over(kStart + seconds(9)));
  clock.touch(kStart + seconds(9));
  CHECK_FALSE(clock.is_over(kStart + seconds(18)));
  CHECK(clock.deadline() == kStart + seconds(19));
  CHECK(clock.is_over(kStart + seconds(19)));
}

TEST_CASE("an open connection is no idleness, however long it says nothing") {
  IdleClock clock(seconds(10), kStart);
  clock.hold(1, kStart + seconds(1));
  CHECK_FALSE(clock.deadline());
  CHECK_FALSE(clock.is_over(kStart + seconds(1000)));
  clock.hold(2, kStart + seconds(1000));
  clock.hold(1, kStart + seconds(1001));
  CHECK_FALSE(clock.deadline());
  clock.hold(0, kStart + seconds(1002));
  CHECK(clock.deadline() == kStart + seconds(1012));
  // And what has never been held does not count as something that happened.
  clock.hold(0, kStart + seconds(1005));
  CHECK(clock.deadline() == kStart + seconds(1012));
}

}  // namespace
}  // namespace msb::launcher
