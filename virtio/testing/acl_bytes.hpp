// SPDX-License-Identifier: Apache-2.0
// Access control lists as extended attributes carry them, entry by entry.
#pragma once

#include <linux/posix_acl_xattr.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "virtio/fs/fuse_message.hpp"

namespace msb::virtio::testing {

struct AclLine {
  std::uint16_t tag;
  std::uint16_t permissions;
  std::uint32_t id;
};

inline std::vector<std::byte> acl_bytes(std::span<const AclLine> lines) {
  std::vector<std::byte> bytes;
  append(bytes, posix_acl_xattr_header{POSIX_ACL_XATTR_VERSION});
  for (const AclLine& line : lines) {
    append(bytes, posix_acl_xattr_entry{line.tag, line.permissions, line.id});
  }
  return bytes;
}

}  // namespace msb::virtio::testing
