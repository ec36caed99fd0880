// SPDX-License-Identifier: Apache-2.0
// What one owner has locked of one file: ranges of bytes, each for reading or for writing, as
// fcntl(2) keeps them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace msb::virtio {

struct LockRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;  // the last byte of it
  short type = 0;          // F_RDLCK, F_WRLCK or F_UNLCK
};

class LockRanges {
 public:
  // What was locked of these bytes is unlocked, or locked in another way. Adds two ranges at most.
  void set(const LockRange& range);

  [[nodiscard]] std::size_t size() const { return ranges_.size(); }
  [[nodiscard]] const std::map<std::uint64_t, LockRange>& all() const { return ranges_; }

 private:
  // No two of them overlap, nor do two of one type touch.
  std::map<std::uint64_t, LockRange> ranges_;  // by their first bytes
};

}  // namespace msb::virtio
