// SPDX-License-Identifier: Apache-2.0
// Extended attributes of a layer's files: which of them an image may set, and their form inside an
// EROFS inode.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace msb::oci {

struct Xattr {
  std::string_view name;  // with its namespace, as in "user.comment"
  std::string_view value;
};

// The kind of file that attributes belong to, as far as it decides which of them it may have.
enum class XattrOwner { kRegular, kDirectory, kSymlink, kOther };

// The attributes that stay, as the entries of an EROFS attribute body (erofs::XattrEntry), sorted
// by name so that equal attributes give equal bytes; the last of several with one name wins.
//
// Left out, as container engines do: what steers overlayfs (`trusted.overlay.*`, `user.overlay.*`),
// or an image could fake whiteouts and redirects; `security.selinux`, which belongs to the host
// that made the image; namespaces that no file system of the guest can store; what the kernel
// refuses for this kind of file (`user.*` on anything but files and directories, default ACLs on
// anything but directories, ACLs on symbolic links); ACLs for access that say no more than the
// file's mode, which the kernel does not store either.
//
// Fails with a sentence that names the attribute: an empty or too long name, a value over 65535
// bytes, a malformed ACL, more of them than an inode can hold.
Result<std::string> encode_xattrs(std::span<const Xattr> xattrs, XattrOwner owner);

// The permissions that a file of mode `permissions` has with its attributes: the kernel keeps the
// lower nine bits equal to what an ACL for access says.
std::uint16_t permissions_with(std::uint16_t permissions, std::span<const Xattr> xattrs);

// The entry that makes a directory opaque for overlayfs (Documentation/filesystems/overlayfs.rst,
// "Whiteouts and opaque directories").
std::string encode_opaque_xattr();

// The attributes that `entries` (of encode_xattrs' form) hold, those of encode_opaque_xattr() and
// of unknown namespaces left out.
std::map<std::string, std::string> decode_xattrs(std::string_view entries);

// Whether `entries` (of encode_xattrs' form) contain the one of encode_opaque_xattr().
bool contains_opaque_xattr(std::string_view entries);

// The bytes that `entries` take behind an inode, header included.
std::size_t xattr_body_size(std::size_t entries_size);

}  // namespace msb::oci
