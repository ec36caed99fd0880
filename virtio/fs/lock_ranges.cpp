// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/lock_ranges.hpp"

#include <fcntl.h>

#include <algorithm>
#include <iterator>

namespace msb::virtio {

void LockRanges::set(const LockRange& range) {
  LockRange added = range;
  auto at = ranges_.lower_bound(range.first);
  if (at != ranges_.begin()) {
    --at;
  }
  // From the last range that begins before this one to the first that begins behind it: those that
  // overlap give way, and those of its type that touch it become part of it.
  while (at != ranges_.end() && (at->first <= range.last || at->first - 1 == range.last)) {
    const LockRange old = at->second;
    const bool touches = old.last >= range.first || old.last + 1 == range.first;
    const bool overlaps = old.last >= range.first && old.first <= range.last;
    if (!overlaps && !(touches && old.type == range.type)) {
      ++at;
      continue;
    }
    at = ranges_.erase(at);
    if (old.type == range.type) {
      added.first = std::min(added.first, old.first);
      added.last = std::max(added.last, old.last);
      continue;
    }
    if (old.first < range.first) {
      ranges_.emplace(old.first, LockRange{old.first, range.first - 1, old.type});
    }
    if (old.last > range.last) {
      at = std::next(
          ranges_.emplace(range.last + 1, LockRange{range.last + 1, old.last, old.type}).first);
    }
  }
  if (range.type != F_UNLCK) {
    ranges_.emplace(added.first, added);
  }
}

}  // namespace msb::virtio
