// SPDX-License-Identifier: Apache-2.0
// POSIX access control lists as extended attributes carry them (<linux/posix_acl_xattr.h>). The
// guest's kernel decides by them; what a file system has to do is to keep them and the mode in
// step, and to let what is made in a directory inherit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace msb::virtio {

inline constexpr std::string_view kAccessAclXattr = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAclXattr = "system.posix_acl_default";

class PosixAcl {
 public:
  // Nothing for what is no list: another version, unknown tags, or entries that are missing,
  // doubled or out of order (posix_acl_valid() in Linux).
  static std::optional<PosixAcl> parse(std::span<const std::byte> value);
  [[nodiscard]] std::vector<std::byte> bytes() const;

  // The permission bits (0777) of a file with it.
  [[nodiscard]] std::uint32_t mode() const;
  // Whether it says no more than those.
  [[nodiscard]] bool is_minimal() const { return entries_.size() == 3; }
  // What chmod(2) makes of it.
  void set_mode(std::uint32_t mode);
  // As the list that a new file inherits, which was asked for with `mode`: neither gives more than
  // the other. Gives the permission bits.
  std::uint32_t limit(std::uint32_t mode);

 private:
  struct Entry {
    std::uint16_t tag;
    std::uint16_t permissions;
    std::uint32_t id;
  };
  std::vector<Entry> entries_;

  Entry* entry(std::uint16_t tag);
  // Where the mode's bits of the group are.
  Entry& group_class();
};

// The list that the guest's attribute `name` of a file holds, if it is one. `path`: as path_to() an
// open descriptor.
std::optional<PosixAcl> acl_at(const std::string& path, std::string_view name);

}  // namespace msb::virtio
