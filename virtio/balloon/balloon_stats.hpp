// SPDX-License-Identifier: Apache-2.0
// What a guest says of its memory (virtio 1.2 sections 5.5.6.3 and 5.5.6.4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "virtio/spec.hpp"

namespace msb::virtio {

// The guest's word, and each field only if the guest gives it.
struct BalloonStats {
  std::optional<std::uint64_t> swapped_in;        // bytes since the guest started
  std::optional<std::uint64_t> swapped_out;       // bytes since the guest started
  std::optional<std::uint64_t> major_faults;      // since the guest started
  std::optional<std::uint64_t> minor_faults;      // since the guest started
  std::optional<std::uint64_t> free_memory;       // bytes
  std::optional<std::uint64_t> total_memory;      // bytes
  std::optional<std::uint64_t> available_memory;  // bytes
  std::optional<std::uint64_t> disk_caches;       // bytes
  std::optional<std::uint64_t> hugetlb_allocations;
  std::optional<std::uint64_t> hugetlb_failures;
};

// More entries than this are not looked at.
inline constexpr std::size_t kMaxBalloonStats = 32;
inline constexpr std::size_t kMaxBalloonStatsSize =
    kMaxBalloonStats * sizeof(BalloonStat);  // bytes

// Reads the first kMaxBalloonStats entries; unknown tags are ignored, as is a last entry that is
// not whole, and of two with the same tag the last holds. Nothing when there is not one entry.
std::optional<BalloonStats> parse_balloon_stats(std::span<const std::byte> entries);

}  // namespace msb::virtio
