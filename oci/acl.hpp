// SPDX-License-Identifier: Apache-2.0
// POSIX access control lists in the form that the kernel keeps in extended attributes
// (linux/posix_acl_xattr.h). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace msb::oci {

// What a well-formed list says.
struct Acl {
  // What the list makes of the nine permission bits of its file (posix_acl_update_mode() in
  // fs/posix_acl.c).
  std::uint16_t permissions = 0;
  // It says no more than those bits do. The kernel then stores no list for access.
  bool is_minimal = false;
};

// Nothing when the kernel would refuse the list (posix_acl_valid()): another version, a wrong
// length, entries out of order, without an owner, or one that has to be there missing. A list
// without any entry is no list: the caller leaves it out.
std::optional<Acl> parse_acl(std::string_view value);

// Whether `value` has the header of a list and nothing else.
bool is_empty_acl(std::string_view value);

}  // namespace msb::oci
