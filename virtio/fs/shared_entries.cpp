// SPDX-License-Identifier: Apache-2.0
// Entries of directories: made, linked, renamed, removed.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <utility>

#include "virtio/fs/posix_acl.hpp"
#include "virtio/fs/shared_files.hpp"
#include "virtio/fs/xattr_names.hpp"

namespace msb::virtio {

// As inode_init_owner() and posix_acl_create() in Linux.
SharedFiles::NewInode SharedFiles::new_inode_in(const Node& directory, int descriptor,
                                                std::uint32_t mode, std::uint32_t device,
                                                const Caller& caller) {
  NewInode made;
  GuestOwner& owner = made.owner;
  owner = {.mode = mode, .uid = caller.uid, .gid = caller.gid, .device = device};
  if (S_ISLNK(mode)) {
    return made;
  }
  if (directory.gives_group) {
    owner.gid = directory.group;
    if (S_ISDIR(mode)) {
      owner.mode |= S_ISGID;
    }
  }
  // A program that runs as a group is for its members to make (CVE-2022-0358). Which groups the
  // caller has besides its first one is not said.
  if (!S_ISDIR(mode) && (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && caller.uid != 0 &&
      caller.gid != owner.gid) {
    owner.mode &= ~std::uint32_t{S_ISGID};
  }
  std::optional<PosixAcl> inherited;
  if (directory.share->has_xattrs(directory.key)) {
    inherited = acl_at(path_to(descriptor), kDefaultAclXattr);
  }
  if (!inherited) {
    owner.mode &= ~(caller.umask & 0777);
    return made;
  }
  if (S_ISDIR(mode)) {
    made.default_acl = inherited->bytes();
  }
  owner.mode = (owner.mode & ~std::uint32_t{0777}) | inherited->limit(owner.mode);
  if (!inherited->is_minimal() && (S_ISREG(mode) || S_ISDIR(mode))) {
    made.access_acl = inherited->bytes();
  }
  return made;
}

Outcome<void> SharedFiles::initialize(Share& share, const Place& place, const NewInode& made) {
  if (!rule_.shows(place.status, made.owner)) {
    if (auto owned = set_owner(share, place, made.owner); !owned) {
      return owned;
    }
  }
  const auto keep = [&](std::string_view name, const std::vector<std::byte>& value) {
    return value.empty() || ::setxattr(place.path.c_str(), host_xattr(name).c_str(), value.data(),
                                       value.size(), 0) == 0;
  };
  if (!keep(kAccessAclXattr, made.access_acl) || !keep(kDefaultAclXattr, made.default_acl)) {
    return failed_call();
  }
  return {};
}

Outcome<Entry> SharedFiles::enter_new(const Slot& slot, const NewInode& made) {
  const auto status = examine_entry(slot.descriptor->get(), slot.name);
  if (!status) {
    return std::unexpected(status.error());
  }
  if (rule_.shows(*status, made.owner) && made.access_acl.empty() && made.default_acl.empty()) {
    return enter_new(slot, made, {*status, {}, false, {}});
  }
  auto opened = open_entry(slot.descriptor->get(), slot.name, O_PATH);
  if (!opened) {
    return std::unexpected(opened.error());
  }
  auto place = open_place(std::make_shared<const Fd>(std::move(*opened)));
  if (!place) {
    return std::unexpected(place.error());
  }
  // Somebody on the host may have put something else there since.
  const struct statx& found = place->status;
  if ((found.stx_mode & S_IFMT) != (made.owner.mode & S_IFMT) || found.stx_uid != rule_.uid() ||
      key_of(found) != key_of(*status)) {
    return std::unexpected(ESTALE);
  }
  return enter_new(slot, made, *place);
}

Outcome<Entry> SharedFiles::enter_made(const Slot& slot, const NewInode& made, const Fd& file) {
  const auto status = examine(file.get());
  if (!status) {
    return std::unexpected(status.error());
  }
  return enter_new(slot, made, {*status, path_to(file.get()), true, {}});
}

Outcome<Entry> SharedFiles::enter_new(const Slot& slot, const NewInode& made, const Place& place) {
  Share& share = *slot.directory->share;
  GuestOwner shown = made.owner;
  if (auto done = initialize(share, place, made); !done) {
    // What could not be made as asked for is not left behind.
    const auto there = examine_entry(slot.descriptor->get(), slot.name);
    if (there && key_of(*there) == key_of(place.status)) {
      ::unlinkat(slot.descriptor->get(), slot.name.c_str(),
                 S_ISDIR(made.owner.mode) ? AT_REMOVEDIR : 0);
    }
    return std::unexpected(done.error());
  }
  if (!rule_.shows(place.status, made.owner)) {
    shown = owner_of(share, place);
  }
  auto entered = nodes_.enter(*slot.directory, slot.name, place.status);
  if (!entered) {
    return std::unexpected(entered.error());
  }
  return Entry{(*entered)->id, show_as(**entered, place.status, shown)};
}

Outcome<Entry> SharedFiles::make_node(std::uint64_t parent, std::string_view name,
                                      std::uint32_t mode, std::uint32_t device,
                                      const Caller& caller) {
  const auto where = slot(parent, name, true);
  if (!where) {
    return std::unexpected(where.error());
  }
  if (!nodes_.has_room()) {
    return std::unexpected(ENFILE);
  }
  const std::uint32_t type = mode & S_IFMT;
  if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && type != S_IFCHR &&
      type != S_IFBLK) {
    return std::unexpected(EINVAL);
  }
  const bool is_device = type == S_IFCHR || type == S_IFBLK;
  const NewInode made = new_inode_in(*where->directory, where->descriptor->get(),
                                     mode & (S_IFMT | 07777), is_device ? device : 0, caller);
  const Node& directory = *where->directory;
  if (is_device && !directory.share->has_xattrs(directory.key)) {
    return std::unexpected(EPERM);
  }
  if (OwnerRule::host_type(mode) == S_IFREG) {
    const auto file = open_entry(where->descriptor->get(), where->name, O_CREAT | O_EXCL | O_WRONLY,
                                 OwnerRule::host_mode(made.owner.mode));
    if (!file) {
      return std::unexpected(file.error());
    }
    return enter_made(*where, made, *file);
  }
  if (::mknodat(where->descriptor->get(), where->name.c_str(), type | (made.owner.mode & 0777),
                0) != 0) {
    return failed_call();
  }
  return enter_new(*where, made);
}

Outcome<Entry> SharedFiles::make_directory(std::uint64_t parent, std::string_view name,
                                           std::uint32_t mode, const Caller& caller) {
  const auto where = slot(parent, name, true);
  if (!where) {
    return std::unexpected(where.error());
  }
  const NewInode made = new_inode_in(*where->directory, where->descriptor->get(),
                                     S_IFDIR | (mode & 07777), 0, caller);
  if (::mkdirat(where->descriptor->get(), where->name.c_str(),
                OwnerRule::host_mode(made.owner.mode)) != 0) {
    return failed_call();
  }
  return enter_new(*where, made);
}

Outcome<Entry> SharedFiles::make_link(std::uint64_t parent, std::string_view name,
                                      const std::string& target, const Caller& caller) {
  const auto where = slot(parent, name, true);
  if (!where) {
    return std::unexpected(where.error());
  }
  if (!nodes_.has_room()) {
    return std::unexpected(ENFILE);
  }
  if (::symlinkat(target.c_str(), where->descriptor->get(), where->name.c_str()) != 0) {
    return failed_call();
  }
  return enter_new(
      *where, new_inode_in(*where->directory, where->descriptor->get(), S_IFLNK | 0777, 0, caller));
}

Outcome<Entry> SharedFiles::link(std::uint64_t id, std::uint64_t parent, std::string_view name) {
  const auto where = slot(parent, name, true);
  const auto found = node(id);
  if (!where || !found) {
    return std::unexpected(where ? found.error() : where.error());
  }
  if ((*found)->share != where->directory->share) {
    return std::unexpected(EXDEV);
  }
  const auto descriptor = nodes_.path(**found);
  if (!descriptor) {
    return std::unexpected(descriptor.error());
  }
  if (::linkat(AT_FDCWD, path_to((*descriptor)->get()).c_str(), where->descriptor->get(),
               where->name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    return failed_call();
  }
  return enter(*where);
}

Outcome<void> SharedFiles::unlink(std::uint64_t parent, std::string_view name, bool directory) {
  const auto where = slot(parent, name, true);
  if (!where) {
    return std::unexpected(where.error());
  }
  // Whoever has it open in the guest goes on with it, by this descriptor.
  auto victim = open_entry(where->descriptor->get(), where->name, O_PATH);
  if (!victim) {
    return std::unexpected(victim.error());
  }
  const auto status = examine(victim->get());
  if (!status) {
    return std::unexpected(status.error());
  }
  if (::unlinkat(where->descriptor->get(), where->name.c_str(), directory ? AT_REMOVEDIR : 0) !=
      0) {
    return failed_call();
  }
  Node* node = nodes_.find(*where->directory->share, key_of(*status));
  if (node != nullptr) {
    nodes_.keep(*node, std::move(*victim));
    if (node->parent == where->directory->id && node->name == where->name) {
      NodeTable::rename(*node, 0, {});
    }
  }
  return {};
}

Outcome<void> SharedFiles::rename(std::uint64_t parent, std::string_view name,
                                  std::uint64_t new_parent, std::string_view new_name,
                                  std::uint32_t flags) {
  const auto from = slot(parent, name, true);
  const auto to = slot(new_parent, new_name, true);
  if (!from || !to) {
    return std::unexpected(from ? to.error() : from.error());
  }
  if (from->directory->share != to->directory->share) {
    return std::unexpected(EXDEV);
  }
  // A whiteout is the one device node that the host gets: number 0, which nothing answers to and
  // which any user may make.
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) != 0) {
    return std::unexpected(EINVAL);
  }
  const auto moved = open_entry(from->descriptor->get(), from->name, O_PATH);
  if (!moved) {
    return std::unexpected(moved.error());
  }
  const auto moved_status = examine(moved->get());
  if (!moved_status) {
    return std::unexpected(moved_status.error());
  }
  auto replaced = open_entry(to->descriptor->get(), to->name, O_PATH);
  if (::syscall(SYS_renameat2, from->descriptor->get(), from->name.c_str(), to->descriptor->get(),
                to->name.c_str(), flags) != 0) {
    return failed_call();
  }
  const Share& share = *from->directory->share;
  Node* node = nodes_.find(share, key_of(*moved_status));
  const auto replaced_status =
      replaced ? examine(replaced->get()) : Outcome<struct statx>(std::unexpected(ENOENT));
  // Two names of one file: then nothing has happened (rename(2)).
  if (replaced_status && key_of(*replaced_status) == key_of(*moved_status)) {
    return {};
  }
  if (replaced_status) {
    if (Node* other = nodes_.find(share, key_of(*replaced_status))) {
      nodes_.keep(*other, std::move(*replaced));
      if ((flags & RENAME_EXCHANGE) != 0) {
        NodeTable::rename(*other, from->directory->id, from->name);
      } else if (other->parent == to->directory->id && other->name == to->name) {
        NodeTable::rename(*other, 0, {});
      }
    }
  }
  if (node != nullptr && node->id != node->share->root_node) {
    NodeTable::rename(*node, to->directory->id, to->name);
  }
  return {};
}

}  // namespace msb::virtio
