// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/lock_ranges.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <array>
#include <cstdint>
#include <random>

namespace msb::virtio {
namespace {

constexpr std::uint64_t kEnd = INT64_MAX;

TEST_CASE("locked ranges merge, split and end as fcntl's do") {
  LockRanges ranges;
  ranges.set({0, 9, F_WRLCK});
  ranges.set({10, 19, F_WRLCK});
  CHECK(ranges.size() == 1);
  ranges.set({5, 14, F_UNLCK});
  CHECK(ranges.size() == 2);
  ranges.set({2, 3, F_RDLCK});
  CHECK(ranges.size() == 4);
  ranges.set({0, kEnd, F_RDLCK});
  CHECK(ranges.size() == 1);
  ranges.set({kEnd, kEnd, F_UNLCK});
  CHECK(ranges.size() == 1);
  ranges.set({0, kEnd, F_UNLCK});
  CHECK(ranges.size() == 0);
}

TEST_CASE("locked ranges are as many as the runs of bytes with one kind of lock") {
  constexpr std::size_t kBytes = 24;
  std::mt19937 random(1);
  LockRanges ranges;
  std::array<short, kBytes> model{};
  model.fill(F_UNLCK);
  for (int step = 0; step < 20'000; ++step) {
    const std::uint64_t first = random() % kBytes;
    const std::uint64_t last = first + random() % (kBytes - first);
    const auto type = std::array<short, 3>{F_RDLCK, F_WRLCK, F_UNLCK}.at(random() % 3);
    const std::size_t before = ranges.size();
    ranges.set({first, last, type});
    REQUIRE(ranges.size() <= before + 2);
    std::size_t runs = 0;
    for (std::size_t i = 0; i < kBytes; ++i) {
      if (i >= first && i <= last) {
        model.at(i) = type;
      }
      runs += model.at(i) != F_UNLCK && (i == 0 || model.at(i - 1) != model.at(i)) ? 1 : 0;
    }
    REQUIRE(ranges.size() == runs);
  }
}

}  // namespace
}  // namespace msb::virtio
