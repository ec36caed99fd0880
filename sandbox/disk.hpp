// SPDX-License-Identifier: Apache-2.0
// The writable layer of a sandbox: a sparse file with an ext4 file system. It is made here, and
// from then on belongs to the guest: nothing on this host parses what a guest has written.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::sandbox {

inline constexpr std::uint64_t kDefaultDiskMib = 10 * 1024;

// Makes the disk of a project or installed sandbox when there is none, and lets it grow to `mib`
// when it is smaller: the guest's init grows its file system. Fails when it would have to shrink,
// or this host's file system has no room to speak of.
Result<void> prepare_disk(const std::string& path, std::uint64_t mib);

// That of a temporary sandbox: a file without a name on the file system of `home`, which is gone
// with the last descriptor.
Result<Fd> make_scratch_disk(const std::string& home, std::uint64_t mib);

// The space that a file takes, in bytes; 0 when there is none.
std::uint64_t space_of(const std::string& path);

}  // namespace msb::sandbox
