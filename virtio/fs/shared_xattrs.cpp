// SPDX-License-Identifier: Apache-2.0
// Extended attributes of shared files.
#include <linux/limits.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "virtio/fs/posix_acl.hpp"
#include "virtio/fs/shared_files.hpp"
#include "virtio/fs/xattr_names.hpp"

namespace msb::virtio {

namespace {

// Those that are kept behind our prefix are of kinds that any file may have; on the host it is
// the "user." kind, which only these two may.
bool can_have_xattrs(mode_t type) {
  return S_ISREG(type) || S_ISDIR(type);
}

}  // namespace

Outcome<std::vector<std::byte>> SharedFiles::get_xattr(std::uint64_t id, std::string_view name,
                                                       std::size_t room) {
  const auto found = node(id);
  if (!found) {
    return std::unexpected(found.error());
  }
  const std::string on_host = host_xattr(name);
  if (on_host.empty() || !can_have_xattrs((*found)->type)) {
    return std::unexpected(ENODATA);
  }
  const auto where = open_place(**found);
  if (!where) {
    return std::unexpected(where.error());
  }
  // What stands for more than itself counts on files of this user's only.
  if (on_host.starts_with(kReservedXattrs) && where->status.stx_uid != rule_.uid()) {
    return std::unexpected(ENODATA);
  }
  std::vector<std::byte> value(std::min<std::size_t>(room, XATTR_SIZE_MAX));
  const ssize_t size = ::getxattr(where->path.c_str(), on_host.c_str(), value.data(), value.size());
  if (size < 0) {
    return failed_call();
  }
  value.resize(
      static_cast<std::size_t>(size));  // without room, so many zeroes: only the size counts
  return value;
}

std::optional<PosixAcl> acl_at(const std::string& path, std::string_view name) {
  std::vector<std::byte> value(4096);  // as much as the guest's kernel takes
  const ssize_t size =
      ::getxattr(path.c_str(), host_xattr(name).c_str(), value.data(), value.size());
  return size <= 0 ? std::nullopt
                   : PosixAcl::parse(std::span(value).first(static_cast<std::size_t>(size)));
}

// An access list says the mode as well, and one that says no more need not be kept
// (posix_acl_update_mode() in Linux).
Outcome<void> SharedFiles::set_acl(Node& node, std::string_view name,
                                   std::span<const std::byte> value, std::uint32_t extra) {
  const auto acl = PosixAcl::parse(value);
  if (!acl) {
    return std::unexpected(EINVAL);
  }
  if (name == kDefaultAclXattr && !S_ISDIR(node.type)) {
    return std::unexpected(EACCES);
  }
  const auto where = open_place(node);
  if (!where) {
    return std::unexpected(where.error());
  }
  const std::string on_host = host_xattr(name);
  const bool kept = name == kDefaultAclXattr || !acl->is_minimal();
  if (kept ? ::setxattr(where->path.c_str(), on_host.c_str(), value.data(), value.size(), 0) != 0
           : ::removexattr(where->path.c_str(), on_host.c_str()) != 0 && errno != ENODATA &&
                 errno != EOPNOTSUPP) {
    return failed_call();
  }
  if (name == kDefaultAclXattr) {
    return {};
  }
  GuestOwner owner = owner_of(*node.share, *where);
  owner.mode = (owner.mode & ~std::uint32_t{0777}) | acl->mode();
  if ((extra & FUSE_SETXATTR_ACL_KILL_SGID) != 0) {
    owner.mode &= ~std::uint32_t{S_ISGID};
  }
  return set_owner(*node.share, *where, owner);
}

// posix_acl_chmod() in Linux.
Outcome<void> SharedFiles::chmod_acl(Share& share, const Place& place, std::uint32_t mode) {
  auto acl =
      share.has_xattrs(key_of(place.status)) ? acl_at(place.path, kAccessAclXattr) : std::nullopt;
  if (!acl) {
    return {};
  }
  acl->set_mode(mode);
  const auto value = acl->bytes();
  if (::setxattr(place.path.c_str(), host_xattr(kAccessAclXattr).c_str(), value.data(),
                 value.size(), 0) != 0) {
    return failed_call();
  }
  return {};
}

Outcome<void> SharedFiles::set_xattr(std::uint64_t id, std::string_view name,
                                     std::span<const std::byte> value, std::uint32_t flags,
                                     std::uint32_t extra) {
  const auto found = writable_node(id);
  if (!found) {
    return std::unexpected(found.error());
  }
  const std::string on_host = host_xattr(name);
  if (on_host.empty()) {
    return std::unexpected(name.size() > XATTR_NAME_MAX ? ERANGE : EPERM);
  }
  if (!can_have_xattrs((*found)->type)) {
    return std::unexpected(EPERM);
  }
  if (name == kAccessAclXattr || name == kDefaultAclXattr) {
    return set_acl(**found, name, value, extra);
  }
  const auto where = open_place(**found);
  if (!where) {
    return std::unexpected(where.error());
  }
  if (::setxattr(where->path.c_str(), on_host.c_str(), value.data(), value.size(),
                 static_cast<int>(flags)) != 0) {
    return failed_call();
  }
  // Whoever has the file open for writing takes it away again.
  if (name == kCapabilityXattr) {
    for (auto& [number, file] : handles_) {
      file->capability |= file->node == id && file->writable;
    }
  }
  return {};
}

Outcome<void> SharedFiles::remove_xattr(std::uint64_t id, std::string_view name) {
  const auto found = writable_node(id);
  if (!found) {
    return std::unexpected(found.error());
  }
  const std::string on_host = host_xattr(name);
  if (on_host.empty() || !can_have_xattrs((*found)->type)) {
    return std::unexpected(ENODATA);
  }
  const auto where = open_place(**found);
  if (!where) {
    return std::unexpected(where.error());
  }
  if (::removexattr(where->path.c_str(), on_host.c_str()) != 0) {
    return failed_call();
  }
  return {};
}

Outcome<std::vector<std::byte>> SharedFiles::list_xattrs(std::uint64_t id) {
  const auto found = node(id);
  if (!found) {
    return std::unexpected(found.error());
  }
  std::vector<std::byte> names;
  if (!can_have_xattrs((*found)->type)) {
    return names;
  }
  const auto where = open_place(**found);
  if (!where) {
    return std::unexpected(where.error());
  }
  std::string on_host(XATTR_LIST_MAX, '\0');
  const ssize_t size = ::listxattr(where->path.c_str(), on_host.data(), on_host.size());
  if (size < 0 && errno != EOPNOTSUPP) {
    return failed_call();
  }
  on_host.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  for (std::string_view rest = on_host; !rest.empty();) {
    const std::string_view name = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    if (const auto shown = guest_xattr(name)) {
      const auto bytes = std::as_bytes(std::span(*shown));
      names.insert(names.end(), bytes.begin(), bytes.end());
      names.push_back(std::byte{0});
    }
  }
  return names;
}

}  // namespace msb::virtio
