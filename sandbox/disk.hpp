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

// Opens the disk of a project or installed sandbox: it is made when there is none, and grows to
// `mib` when it is smaller, and the guest's init grows its file system. Fails when it would have to
// shrink, is no regular file, or this host's file system has no room to speak of.
Result<Fd> prepare_disk(const std::string& path, std::uint64_t mib);

// That of a temporary sandbox: a file without a name on the file system of `home`, which is gone
// with the last descriptor.
Result<Fd> make_scratch_disk(const std::string& home, std::uint64_t mib);

// The space that a file takes, in bytes; 0 when there is none.
std::uint64_t space_of(const std::string& path);

}  // namespace msb::sandbox
