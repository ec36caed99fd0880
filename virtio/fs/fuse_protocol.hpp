// SPDX-License-Identifier: Apache-2.0
// What of the FUSE protocol Linux 6.12 speaks and the <linux/fuse.h> of Debian 12 (version 7.38)
// does not have yet. Names are those of later headers.
#pragma once

#include <linux/fuse.h>

#include <cstdint>

namespace msb::virtio {

inline constexpr std::uint32_t kFuseMinorVersion = 39;

// 7.36, the second half of fuse_init_in.flags.
inline constexpr std::uint64_t kFuseDirectIoAllowMmap = std::uint64_t{1} << 36;

// 7.39: STATX.
inline constexpr std::uint32_t kFuseStatx = 52;

struct FuseStatxIn {
  std::uint32_t getattr_flags;
  std::uint32_t reserved;
  std::uint64_t fh;
  std::uint32_t sx_flags;
  std::uint32_t sx_mask;
};

struct FuseSxTime {
  std::int64_t tv_sec;
  std::uint32_t tv_nsec;
  std::int32_t reserved;
};

struct FuseStatx {
  std::uint32_t mask;
  std::uint32_t blksize;
  std::uint64_t attributes;
  std::uint32_t nlink;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint16_t mode;
  std::uint16_t spare0;
  std::uint64_t ino;
  std::uint64_t size;
  std::uint64_t blocks;
  std::uint64_t attributes_mask;
  FuseSxTime atime;
  FuseSxTime btime;
  FuseSxTime ctime;
  FuseSxTime mtime;
  std::uint32_t rdev_major;
  std::uint32_t rdev_minor;
  std::uint32_t dev_major;
  std::uint32_t dev_minor;
  std::uint64_t spare2[14];
};
static_assert(sizeof(FuseStatx) == 256);

struct FuseStatxOut {
  std::uint64_t attr_valid;
  std::uint32_t attr_valid_nsec;
  std::uint32_t flags;
  std::uint64_t spare[2];
  FuseStatx stat;
};

}  // namespace msb::virtio
