// SPDX-License-Identifier: Apache-2.0
// The on-disk format of EROFS as far as our images use it: uncompressed, extended inodes, inline
// tails and inline extended attributes. Names and meanings follow the Linux kernel,
// fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst. All numbers are little-endian, as is
// every host that we run on.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace msb::oci::erofs {

static_assert(std::endian::native == std::endian::little);

inline constexpr std::uint32_t kBlockBits = 12;
inline constexpr std::uint32_t kBlockSize = 1U << kBlockBits;  // bytes
inline constexpr std::uint32_t kSuperblockOffset = 1024;       // bytes, in block 0
inline constexpr std::uint32_t kMagic = 0xE0F5E1E2;

// Superblock.feature_compat
inline constexpr std::uint32_t kFeatureChecksum = 0x1;  // Superblock.checksum is set
inline constexpr std::uint32_t kFeatureMtime = 0x2;     // inode times are modification times

// A "nid" counts slots of 32 bytes from Superblock.meta_blkaddr on. The one of the root has 16
// bits.
inline constexpr std::uint32_t kSlotSize = 32;  // bytes
inline constexpr std::uint32_t kNoBlock = 0xFFFFFFFF;

struct Superblock {
  std::uint32_t magic;
  std::uint32_t checksum;  // CRC-32C, not inverted at the end, from kSuperblockOffset to the end of
                           // block 0, this zero
  std::uint32_t feature_compat;
  std::uint8_t blkszbits;
  std::uint8_t sb_extslots;
  std::uint16_t root_nid;
  std::uint64_t inos;        // number of inodes
  std::uint64_t build_time;  // seconds; only compact inodes use it
  std::uint32_t build_time_nsec;
  std::uint32_t blocks;         // length of the image
  std::uint32_t meta_blkaddr;   // first block of the inodes
  std::uint32_t xattr_blkaddr;  // first block of shared extended attributes; we have none
  std::uint8_t uuid[16];
  std::uint8_t volume_name[16];
  std::uint32_t feature_incompat;
  std::uint16_t available_compr_algs;
  std::uint16_t extra_devices;
  std::uint16_t devt_slotoff;
  std::uint8_t dirblkbits;
  std::uint8_t xattr_prefix_count;
  std::uint32_t xattr_prefix_start;
  std::uint64_t packed_nid;
  std::uint8_t xattr_filter_reserved;
  std::uint8_t reserved2[23];
};
static_assert(sizeof(Superblock) == 128);

// Inode.i_format: bit 0 set for extended inodes, bits 1 to 3 hold the data layout.
inline constexpr std::uint16_t kExtendedInode = 0x1;
enum class DataLayout : std::uint16_t {
  kPlain = 0,  // all data in consecutive blocks from raw_blkaddr
  kInline =
      2,  // the last, partial block follows the inode and its attributes, and may not cross a block
};
constexpr std::uint16_t inode_format(DataLayout layout) {
  return static_cast<std::uint16_t>(kExtendedInode | static_cast<std::uint16_t>(layout) << 1U);
}

// Extended inode; starts at a slot. We never let it cross a block.
struct Inode {
  std::uint16_t i_format;
  std::uint16_t i_xattr_icount;  // 0, or 1 + (attribute bytes after XattrHeader) / 4
  std::uint16_t i_mode;
  std::uint16_t i_reserved;
  std::uint64_t i_size;
  std::uint32_t i_u;  // first block of the data, or the device number
  std::uint32_t i_ino;
  std::uint32_t i_uid;
  std::uint32_t i_gid;
  std::uint64_t i_mtime;  // seconds, two's complement before 1970
  std::uint32_t i_mtime_nsec;
  std::uint32_t i_nlink;
  std::uint8_t msb_marks;  // reserved in EROFS, and not read by the kernel: ours
  std::uint8_t i_reserved2[15];
};
static_assert(sizeof(Inode) == 64);

// Inode.msb_marks, of directories.
inline constexpr std::uint8_t kMarkImplied = 0x1;       // the layer does not list it
inline constexpr std::uint8_t kMarkImpliedBelow = 0x2;  // there are such somewhere below

// Precedes the inline attributes of an inode that has any.
struct XattrHeader {
  std::uint32_t h_name_filter;
  std::uint8_t h_shared_count;
  std::uint8_t h_reserved2[7];
};
static_assert(sizeof(XattrHeader) == 12);

// Followed by the name without its prefix and by the value; the next entry starts at a multiple of
// 4 bytes.
struct XattrEntry {
  std::uint8_t e_name_len;
  std::uint8_t e_name_index;
  std::uint16_t e_value_size;
};
static_assert(sizeof(XattrEntry) == 4);

inline constexpr std::uint32_t kXattrAlignment = 4;
inline constexpr std::size_t kMaxXattrBody =
    sizeof(XattrHeader) + std::size_t{kXattrAlignment} * 0xFFFE;  // bytes

// XattrEntry.e_name_index
enum class XattrPrefix : std::uint8_t {
  kUser = 1,             // "user."
  kPosixAclAccess = 2,   // "system.posix_acl_access", all of it
  kPosixAclDefault = 3,  // "system.posix_acl_default", all of it
  kTrusted = 4,          // "trusted."
  kSecurity = 6,         // "security."
};

// A directory's data: blocks that each hold Dirents, then their names in the same order without
// separators. Names ascend bytewise within and across blocks, "." and ".." among them; the last
// name of a block ends at a zero byte or the end.
struct [[gnu::packed]] Dirent {
  std::uint64_t nid;
  std::uint16_t
      nameoff;  // from the start of the block; the first one also tells the number of entries
  std::uint8_t file_type;
  std::uint8_t reserved;
};
static_assert(sizeof(Dirent) == 12);

// Dirent.file_type: the kernel's generic FT_* values.
enum class FileTypeCode : std::uint8_t {
  kRegular = 1,
  kDirectory = 2,
  kCharacterDevice = 3,
  kBlockDevice = 4,
  kFifo = 5,
  kSymlink = 7,
};

// Device numbers as the kernel's new_encode_dev() packs them.
inline constexpr std::uint32_t kMaxDeviceMajor = 0xFFF;
inline constexpr std::uint32_t kMaxDeviceMinor = 0xFFFFF;
constexpr std::uint32_t encode_device(std::uint32_t major, std::uint32_t minor) {
  return (minor & 0xFFU) | (major << 8U) | ((minor & ~0xFFU) << 12U);
}

}  // namespace msb::oci::erofs
