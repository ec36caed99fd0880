// SPDX-License-Identifier: Apache-2.0
#include "oci/erofs_reader.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "oci/erofs_format.hpp"
#include "oci/xattrs.hpp"

namespace msb::oci {
namespace {

template <typename T>
bool read_value(int fd, T& value, std::uint64_t offset) {
  return read_image_at(fd, std::as_writable_bytes(std::span(&value, 1)), offset);
}

}  // namespace

bool read_image_at(int fd, std::span<std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t count = ::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      return false;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return true;
}

Result<erofs::Superblock> read_superblock(int fd) {
  erofs::Superblock super{};
  if (!read_value(fd, super, erofs::kSuperblockOffset) || super.magic != erofs::kMagic) {
    return fail("a layer's image has no EROFS superblock");
  }
  return super;
}

bool is_whole_image(int fd) {
  struct stat status{};
  const auto super = read_superblock(fd);
  return ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && super &&
         std::cmp_equal(status.st_size, std::uint64_t{super->blocks} * erofs::kBlockSize);
}

Result<bool> has_opaque_root(int fd) {
  erofs::Inode root{};
  const auto super = read_superblock(fd);
  if (!super) {
    return std::unexpected(super.error());
  }
  const std::uint64_t offset = std::uint64_t{super->meta_blkaddr} * erofs::kBlockSize +
                               std::uint64_t{super->root_nid} * erofs::kSlotSize;
  if (!read_value(fd, root, offset)) {
    return fail("a layer's image has no root directory");
  }
  if (root.i_xattr_icount <= 1) {
    return false;
  }
  std::string entries(std::size_t{root.i_xattr_icount - 1U} * erofs::kXattrAlignment, '\0');
  if (!read_image_at(fd, std::as_writable_bytes(std::span(entries)),
                     offset + sizeof(erofs::Inode) + sizeof(erofs::XattrHeader))) {
    return fail("a layer's image is cut off in its root directory");
  }
  return contains_opaque_xattr(entries);
}

}  // namespace msb::oci
