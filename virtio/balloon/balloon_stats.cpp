// SPDX-License-Identifier: Apache-2.0
#include "virtio/balloon/balloon_stats.hpp"

#include <algorithm>
#include <cstring>

namespace msb::virtio {

namespace {

// Where an entry goes; nowhere when its tag is not known.
std::optional<std::uint64_t>* field(BalloonStats& stats, BalloonStatTag tag) {
  switch (tag) {
    case BalloonStatTag::kSwapIn:
      return &stats.swapped_in;
    case BalloonStatTag::kSwapOut:
      return &stats.swapped_out;
    case BalloonStatTag::kMajorFaults:
      return &stats.major_faults;
    case BalloonStatTag::kMinorFaults:
      return &stats.minor_faults;
    case BalloonStatTag::kFreeMemory:
      return &stats.free_memory;
    case BalloonStatTag::kTotalMemory:
      return &stats.total_memory;
    case BalloonStatTag::kAvailableMemory:
      return &stats.available_memory;
    case BalloonStatTag::kDiskCaches:
      return &stats.disk_caches;
    case BalloonStatTag::kHugetlbAllocations:
      return &stats.hugetlb_allocations;
    case BalloonStatTag::kHugetlbFailures:
      return &stats.hugetlb_failures;
  }
  return nullptr;
}

}  // namespace

std::optional<BalloonStats> parse_balloon_stats(std::span<const std::byte> entries) {
  const std::size_t count = std::min(entries.size() / sizeof(BalloonStat), kMaxBalloonStats);
  if (count == 0) {
    return std::nullopt;
  }
  BalloonStats stats;
  for (std::size_t i = 0; i < count; ++i) {
    BalloonStat entry{};
    std::memcpy(&entry, entries.subspan(i * sizeof entry).data(), sizeof entry);
    if (auto* known = field(stats, entry.tag)) {
      *known = std::uint64_t{entry.value};
    }
  }
  return stats;
}

}  // namespace msb::virtio
