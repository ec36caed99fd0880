// SPDX-License-Identifier: Apache-2.0
// The files of disks: `msb-vmm run --disk`, and of those that grow while a sandbox has them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::launcher {

// What the user asked for: FILE[:ro][:direct], the words in any order.
struct DiskWords {
  std::string path;
  bool read_only = false;
  bool direct = false;          // by-pass the host's page cache
  bool writable_layer = false;  // of a sandbox, for whose user reading alone is no advice
};
Result<DiskWords> parse_disk(std::string_view word);

// A disk's file, locked for as long as a descriptor of it is open anywhere: against every other
// sandbox, or when read-only against those that write.
struct OpenDisk {
  Fd file;
  Fd direct;                      // the same file past the page cache, if asked for
  std::uint32_t alignment = 512;  // that `direct` wants, bytes
  std::uint64_t size = 0;         // bytes, a multiple of 512
};
// Fails unless it is a regular file or a block device of a size that a disk can have.
Result<OpenDisk> open_disk(const DiskWords& disk);

// A disk of a sandbox that runs.
struct RunningDisk {
  Fd file;                 // a duplicate of OpenDisk's, which keeps its lock
  std::uint64_t size = 0;  // that the guest was told last, bytes
  bool read_only = false;
};
// Makes the file `size` bytes large, and returns that. Without `size`, which is for block devices,
// returns what the device has now. Fails where data would be cut off, for what a disk cannot have,
// and for a disk that is read-only.
Result<std::uint64_t> grow_disk(const RunningDisk& disk, std::optional<std::uint64_t> size);

}  // namespace msb::launcher
