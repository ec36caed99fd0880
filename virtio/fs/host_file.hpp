// SPDX-License-Identifier: Apache-2.0
// System calls on files of shared host directories. A name is always one component below an open
// directory, and no symbolic link is followed, ever: that is what keeps a share from being left.
// What a guest may make the host open is decided by the type of an inode that an O_PATH descriptor
// already holds, never by a name.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <expected>
#include <optional>
#include <string>

#include "base/fd.hpp"

namespace msb::virtio {

// A value, or the errno (positive) that the guest gets.
template <typename T>
using Outcome = std::expected<T, int>;

// The errno of the system call that has just failed.
std::unexpected<int> failed_call();

// Whether `name` can be an entry of a directory: neither empty, "." or "..", nor with a '/' or a
// NUL in it, and at most 255 bytes. ENAMETOOLONG or EINVAL otherwise.
Outcome<void> check_name(std::string_view name);

// What tells an inode from every other, also from a later one with its number.
struct InodeKey {
  std::uint64_t device = 0;
  std::uint64_t number = 0;
  std::int64_t birth_ns = 0;  // 0 where the file system does not know

  bool operator==(const InodeKey&) const = default;
};
InodeKey key_of(const struct statx& status);

// openat2(2) of entry `name` in `directory`. Without O_CREAT only O_PATH may be asked for.
Outcome<Fd> open_entry(int directory, const std::string& name, int flags, mode_t mode = 0);
// Opens the inode behind an O_PATH descriptor anew. ELOOP unless it is a regular file or a
// directory: nothing else is ever opened.
Outcome<Fd> reopen(int path, int flags);

// Whether a file belongs to a file system whose files are not data but the kernel's own controls
// (/proc and the like), which could lead anywhere: to this process's memory, for one.
Outcome<bool> is_kernels_own(int descriptor);

// statx(2) of an entry, or of a descriptor.
Outcome<struct statx> examine_entry(int directory, const std::string& name);
Outcome<struct statx> examine(int descriptor);

// A path that leads to the inode behind a descriptor, or to an entry in the directory behind it.
// For system calls that take nothing else; with one that follows no link at its end.
std::string path_to(int descriptor);
std::string path_to(int directory, const std::string& name);

}  // namespace msb::virtio
