// SPDX-License-Identifier: Apache-2.0
// Statistics of every length and order (hostile-input.md 20).
#include "virtio/balloon/balloon_stats.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

namespace msb::virtio {
namespace {

using Entry = std::pair<std::uint16_t, std::uint64_t>;

std::vector<std::byte> encode(std::initializer_list<Entry> entries) {
  std::vector<std::byte> bytes;
  for (const auto& [tag, value] : entries) {
    for (unsigned i = 0; i < 2; ++i) {
      bytes.push_back(static_cast<std::byte>(tag >> (8 * i)));
    }
    for (unsigned i = 0; i < 8; ++i) {
      bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
    }
  }
  return bytes;
}

TEST_CASE("each tag of the specification has its field") {
  const auto stats = parse_balloon_stats(encode({{0, 100},
                                                 {1, 101},
                                                 {2, 102},
                                                 {3, 103},
                                                 {4, 104},
                                                 {5, 105},
                                                 {6, 106},
                                                 {7, 107},
                                                 {8, 108},
                                                 {9, ~std::uint64_t{0}}}));
  REQUIRE(stats);
  CHECK(stats->swapped_in == 100);
  CHECK(stats->swapped_out == 101);
  CHECK(stats->major_faults == 102);
  CHECK(stats->minor_faults == 103);
  CHECK(stats->free_memory == 104);
  CHECK(stats->total_memory == 105);
  CHECK(stats->available_memory == 106);
  CHECK(stats->disk_caches == 107);
  CHECK(stats->hugetlb_allocations == 108);
  CHECK(stats->hugetlb_failures == ~std::uint64_t{0});
}

TEST_CASE("what the guest does not say stays empty, and 0 is something said") {
  const auto stats = parse_balloon_stats(encode({{5, 1 << 30}, {4, 0}}));
  REQUIRE(stats);
  CHECK(stats->total_memory == 1 << 30);
  CHECK(stats->free_memory == 0);
  CHECK_FALSE(stats->swapped_in);
  CHECK_FALSE(stats->available_memory);
  CHECK_FALSE(stats->hugetlb_failures);
}

TEST_CASE("tags that are not known are ignored, those of later specifications among them") {
  for (const std::uint16_t tag :
       std::initializer_list<std::uint16_t>{10, 15, 255, 256, 260, 0x7fff, 0x8004, 0xffff}) {
    CAPTURE(tag);
    const auto stats = parse_balloon_stats(encode({{tag, 1}, {4, 2}, {tag, 3}}));
    REQUIRE(stats);
    CHECK(stats->free_memory == 2);
    CHECK_FALSE(stats->swapped_in);
    CHECK_FALSE(stats->total_memory);
  }
}

TEST_CASE("of two entries with the same tag the last holds") {
  const auto stats = parse_balloon_stats(encode({{4, 1}, {5, 2}, {4, 3}}));
  REQUIRE(stats);
  CHECK(stats->free_memory == 3);
  CHECK(stats->total_memory == 2);
}

TEST_CASE("bytes that are no whole entry are ignored, wherever the end is") {
  const auto bytes = encode({{4, 1}, {5, 2}, {6, 3}});
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    CAPTURE(size);
    // A copy of its own, so that a read beyond it is seen.
    const std::vector<std::byte> part(bytes.begin(),
                                      bytes.begin() + static_cast<std::ptrdiff_t>(size));
    const auto stats = parse_balloon_stats(part);
    CHECK(stats.has_value() == (size >= 10));
    if (stats) {
      CHECK(stats->free_memory == 1);
      CHECK(stats->total_memory.has_value() == (size >= 20));
      CHECK(stats->available_memory.has_value() == (size >= 30));
    }
  }
}

TEST_CASE("the first 32 entries count, and what follows them does not") {
  std::vector<std::byte> bytes;
  for (std::uint64_t i = 0; i < 40; ++i) {
    const auto entry = encode({{4, i}});
    bytes.insert(bytes.end(), entry.begin(), entry.end());
  }
  const auto stats = parse_balloon_stats(bytes);
  REQUIRE(stats);
  CHECK(stats->free_memory == kMaxBalloonStats - 1);
}

}  // namespace
}  // namespace msb::virtio
