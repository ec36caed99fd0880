// SPDX-License-Identifier: Apache-2.0
// Nodes and their attributes.
#include "virtio/fs/shared_files.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <climits>
#include <utility>

#include "virtio/fs/xattr_names.hpp"

namespace msb::virtio {

namespace {

constexpr std::uint32_t kPermissions = 07777;

// File systems that tell of failed writes when a file is closed.
bool has_late_errors(const struct statfs& status) {
  constexpr std::array<std::uint32_t, 6> kTypes{NFS_SUPER_MAGIC,       SMB_SUPER_MAGIC,
                                                0xff534d42 /* CIFS */, 0xfe534d42 /* SMB2 */,
                                                FUSE_SUPER_MAGIC,      CEPH_SUPER_MAGIC};
  return std::ranges::find(kTypes, static_cast<std::uint32_t>(status.f_type)) != kTypes.end();
}

timespec time_of(bool set, bool now, std::uint64_t seconds, std::uint32_t nanoseconds) {
  if (!set) {
    return {0, UTIME_OMIT};
  }
  if (now) {
    return {0, UTIME_NOW};
  }
  return {static_cast<time_t>(seconds), static_cast<long>(nanoseconds)};
}

}  // namespace

Result<SharedFiles::Root> SharedFiles::add(Fd root, bool read_only, ShareCache cache) {
  const auto status = examine(root.get());
  if (!status) {
    return fail_errno(status.error(), "cannot examine what is to be shared");
  }
  if (!S_ISDIR(status->stx_mode) && !S_ISREG(status->stx_mode)) {
    return fail("only directories and regular files can be shared");
  }
  const auto kernels_own = is_kernels_own(root.get());
  if (!kernels_own || *kernels_own) {
    return fail("files of the kernel's own, as in /proc, cannot be shared");
  }
  struct statfs file_system{};
  if (::fstatfs(root.get(), &file_system) != 0) {
    return fail_errno(errno, "cannot examine the file system of what is to be shared");
  }
  auto share = std::make_shared<Share>();
  share->root = std::move(root);
  share->read_only = read_only;
  share->cache = cache;
  share->number = next_share_++;
  share->late_errors = has_late_errors(file_system);
  const auto node = nodes_.add_root(share);
  if (!node) {
    return fail_errno(node.error(), "cannot share");
  }
  shares_.push_back(share);
  return Root{(*node)->id, S_ISDIR(status->stx_mode), std::move(share)};
}

void SharedFiles::remove(std::uint64_t root) {
  const Node* node = nodes_.find(root);
  if (node == nullptr) {
    return;
  }
  const std::shared_ptr<Share> share = node->share;
  std::erase_if(handles_, [&](const auto& handle) { return handle.second->share == share; });
  locks_.drop(*share);
  nodes_.remove(*share);
  std::erase(shares_, share);
}

void SharedFiles::reset() {
  handles_.clear();
  locks_.clear();
  nodes_.forget_all();
}

void SharedFiles::forget(std::uint64_t id, std::uint64_t count) {
  nodes_.forget(id, count);
  if (nodes_.find(id) == nullptr) {
    locks_.drop(id);
  }
}

const Share* SharedFiles::share_of(std::uint64_t id) {
  const Node* found = nodes_.find(id);
  return found == nullptr ? nullptr : found->share.get();
}

void SharedFiles::note_lock(std::uint64_t id) {
  const Node* const locked = nodes_.find(id);
  Node* const directory = locked == nullptr ? nullptr : nodes_.find(locked->parent);
  if (directory != nullptr) {
    directory->has_locks = true;
  }
}

bool SharedFiles::is_beside_locks(std::uint64_t id) {
  const Node* const found = nodes_.find(id);
  const Node* const directory = found == nullptr ? nullptr : nodes_.find(found->parent);
  return directory != nullptr && directory->has_locks;
}

// --- how nodes are found ---

Outcome<Node*> SharedFiles::node(std::uint64_t id) {
  Node* found = nodes_.find(id);
  if (found == nullptr || found->share->ended) {
    return std::unexpected(ESTALE);
  }
  return found;
}

Outcome<Node*> SharedFiles::writable_node(std::uint64_t id) {
  auto found = node(id);
  if (found && (*found)->share->read_only) {
    return std::unexpected(EROFS);
  }
  return found;
}

// By its name, unless it is open anyway.
Outcome<SharedFiles::Place> SharedFiles::place(Node& node) {
  if (NodeTable::is_open(node)) {
    return open_place(node);
  }
  Node* parent = nodes_.find(node.parent);
  auto directory = parent == nullptr ? std::unexpected(ESTALE) : nodes_.path(*parent);
  if (!directory) {
    if (PathFd file = NodeTable::opened(node)) {
      return open_place(std::move(file));
    }
    return std::unexpected(directory.error());
  }
  const int descriptor = (*directory)->get();
  const auto status = examine_entry(descriptor, node.name);
  if (!status || key_of(*status) != node.key) {
    if (PathFd file = NodeTable::opened(node)) {
      return open_place(std::move(file));
    }
    return std::unexpected(!status && status.error() != ENOENT ? status.error() : ESTALE);
  }
  return Place{*status, path_to(descriptor, node.name), false, std::move(*directory)};
}

Outcome<SharedFiles::Place> SharedFiles::open_place(Node& node) {
  auto descriptor = nodes_.path(node);
  if (!descriptor) {
    return std::unexpected(descriptor.error());
  }
  return open_place(std::move(*descriptor));
}

Outcome<SharedFiles::Place> SharedFiles::open_place(PathFd descriptor) {
  const auto status = examine(descriptor->get());
  if (!status) {
    return std::unexpected(status.error());
  }
  std::string path = path_to(descriptor->get());
  return Place{*status, std::move(path), true, std::move(descriptor)};
}

Outcome<SharedFiles::Slot> SharedFiles::slot(std::uint64_t directory, std::string_view name,
                                             bool to_write) {
  if (auto good = check_name(name); !good) {
    return std::unexpected(good.error());
  }
  auto found = to_write ? writable_node(directory) : node(directory);
  if (!found) {
    return std::unexpected(found.error());
  }
  if (!S_ISDIR((*found)->type)) {
    return std::unexpected(ENOTDIR);
  }
  auto descriptor = nodes_.path(**found);
  if (!descriptor) {
    return std::unexpected(descriptor.error());
  }
  return Slot{*found, std::move(*descriptor), std::string(name)};
}

Outcome<Entry> SharedFiles::enter(const Slot& slot) {
  const auto status = examine_entry(slot.descriptor->get(), slot.name);
  if (!status) {
    return std::unexpected(status.error());
  }
  if (auto admitted = admit(slot, *status); !admitted) {
    return std::unexpected(admitted.error());
  }
  auto entered = nodes_.enter(*slot.directory, slot.name, *status);
  if (!entered) {
    return std::unexpected(entered.error());
  }
  const Place place{*status, path_to(slot.descriptor->get(), slot.name), false, slot.descriptor};
  return Entry{(*entered)->id, show(**entered, place)};
}

// What is mounted below a share belongs to it, but for the kernel's own file systems: there, files
// that look like any other are doors.
Outcome<void> SharedFiles::admit(const Slot& slot, const struct statx& status) {
  const InodeKey key = key_of(status);
  if (key.device == slot.directory->share->device) {
    return {};
  }
  const auto opened = open_entry(slot.descriptor->get(), slot.name, O_PATH);
  if (!opened) {
    return std::unexpected(opened.error());
  }
  const auto found = examine(opened->get());
  const auto own = is_kernels_own(opened->get());
  if (!found || !own) {
    return std::unexpected(found ? own.error() : found.error());
  }
  if (key_of(*found).device != key.device) {
    return std::unexpected(ESTALE);
  }
  return *own ? Outcome<void>(std::unexpected(EACCES)) : Outcome<void>();
}

Outcome<Entry> SharedFiles::lookup(std::uint64_t parent, std::string_view name) {
  const auto where = slot(parent, name, false);
  if (!where) {
    return std::unexpected(where.error());
  }
  return enter(*where);
}

// --- attributes ---

std::uint64_t SharedFiles::inode_number(std::uint64_t device, std::uint64_t number) {
  auto found = std::ranges::find(devices_, device);
  if (found == devices_.end()) {
    // A number for each of so many; the rest share one, and only then may numbers be the same.
    constexpr std::size_t kMost = 1024;
    if (devices_.size() < kMost) {
      devices_.push_back(device);
    }
    found = devices_.end() - 1;
  }
  // Inode numbers seldom reach 2^48. The guest shows one device for all of the host's.
  return number ^ static_cast<std::uint64_t>(found - devices_.begin()) << 48;
}

GuestOwner SharedFiles::owner_of(Share& share, const Place& place) {
  std::optional<GuestOwner> kept;
  const bool can_have = S_ISREG(place.status.stx_mode) || S_ISDIR(place.status.stx_mode);
  const InodeKey key = key_of(place.status);
  if (can_have && place.status.stx_uid == rule_.uid() && share.has_xattrs(key)) {
    std::array<char, 64> text;  // longer is none of ours
    const auto size = place.follow
                          ? ::getxattr(place.path.c_str(), kOwnerXattr, text.data(), text.size())
                          : ::lgetxattr(place.path.c_str(), kOwnerXattr, text.data(), text.size());
    if (size > 0) {
      kept = GuestOwner::parse({text.data(), static_cast<std::size_t>(size)});
    } else if (size < 0 && errno == EOPNOTSUPP) {
      share.note_no_xattrs(key);
    }
  }
  return rule_.shown(place.status, kept);
}

fuse_attr SharedFiles::show(Node& node, const Place& place) {
  return show_as(node, place.status, owner_of(*node.share, place));
}

fuse_attr SharedFiles::show_as(Node& node, const struct statx& status, const GuestOwner& owner) {
  node.gives_group = S_ISDIR(owner.mode) && (owner.mode & S_ISGID) != 0;
  node.group = owner.gid;
  fuse_attr attr = attributes_of(status, owner);
  attr.ino = inode_number(node.key.device, node.key.number);
  return attr;
}

Outcome<SharedFiles::Attributes> SharedFiles::attributes(std::uint64_t id) {
  const auto found = node(id);
  if (!found) {
    return std::unexpected(found.error());
  }
  const auto where = place(**found);
  if (!where) {
    return std::unexpected(where.error());
  }
  return Attributes{show(**found, *where), where->status};
}

Outcome<void> SharedFiles::set_owner(Share& share, const Place& place, const GuestOwner& wanted) {
  assert(place.follow);  // by a name, chmod(2) could be led elsewhere
  const std::uint32_t type = place.status.stx_mode & S_IFMT;
  if (type != S_IFREG && type != S_IFDIR) {
    // Such files have no attributes of the "user." kind: the host's own say all. What a link's
    // owner is means nothing, so where the host does not let us change it, it stays; FIFOs and
    // sockets stay the user's in any case.
    if (type == S_IFLNK) {
      const GuestOwner now = rule_.shown(place.status, std::nullopt);
      const bool other = wanted.uid != now.uid || wanted.gid != now.gid;
      return !other ||
                     ::fchownat(place.descriptor->get(), "", wanted.uid, wanted.gid,
                                AT_EMPTY_PATH) == 0 ||
                     errno == EPERM
                 ? Outcome<void>()
                 : failed_call();
    }
    return (wanted.mode & 0777) == (place.status.stx_mode & kPermissions) ||
                   ::chmod(place.path.c_str(), wanted.mode & 0777) == 0
               ? Outcome<void>()
               : failed_call();
  }
  const InodeKey key = key_of(place.status);
  std::uint32_t mode = OwnerRule::host_mode(wanted.mode);
  const auto change_mode = [&]() -> Outcome<void> {
    if (mode != (place.status.stx_mode & kPermissions) && ::chmod(place.path.c_str(), mode) != 0) {
      return failed_call();
    }
    return {};
  };
  // First of all: who may not write a file may not write its attributes either.
  if (auto changed = change_mode(); !changed) {
    return changed;
  }
  struct statx after = place.status;
  after.stx_mode = static_cast<std::uint16_t>(type | mode);
  if (rule_.shows(after, wanted)) {
    if (share.has_xattrs(key) && ::removexattr(place.path.c_str(), kOwnerXattr) != 0 &&
        errno != ENODATA && errno != EOPNOTSUPP) {
      return failed_call();
    }
    return {};
  }
  if (share.has_xattrs(key)) {
    // What is kept counts on files of this user's only.
    if (place.status.stx_uid != rule_.uid() &&
        ::chown(place.path.c_str(), rule_.uid(), rule_.gid()) != 0) {
      return failed_call();
    }
    const std::string text = wanted.text();
    if (::setxattr(place.path.c_str(), kOwnerXattr, text.data(), text.size(), 0) == 0) {
      return {};
    }
    if (errno != EOPNOTSUPP) {
      return failed_call();
    }
    share.note_no_xattrs(key);
  }
  // What the host's own bits can say is kept, and anything else refused.
  mode = wanted.mode & 0777;
  after.stx_mode = static_cast<std::uint16_t>(type | mode);
  if (!rule_.shows(after, wanted)) {
    mode = place.status.stx_mode & kPermissions;
    ::chmod(place.path.c_str(), mode);
    return std::unexpected(EPERM);
  }
  if (::chmod(place.path.c_str(), mode) != 0) {
    return failed_call();
  }
  return {};
}

Outcome<void> SharedFiles::truncate(Node& node, const Place& place, const fuse_setattr_in& wanted) {
  if ((wanted.valid & FATTR_FH) != 0) {
    const auto open_file = find(wanted.fh);
    if (open_file == nullptr || open_file->node != node.id || !open_file->writable) {
      return std::unexpected(EBADF);
    }
    if (::ftruncate(open_file->file.get(), static_cast<off_t>(wanted.size)) != 0) {
      return failed_call();
    }
    return {};
  }
  const auto file = reopen(place.descriptor->get(), O_WRONLY);
  if (!file) {
    return std::unexpected(file.error() == ELOOP ? EINVAL : file.error());
  }
  if (::ftruncate(file->get(), static_cast<off_t>(wanted.size)) != 0) {
    return failed_call();
  }
  return {};
}

Outcome<fuse_attr> SharedFiles::set_attributes(std::uint64_t id, const fuse_setattr_in& wanted) {
  constexpr std::uint32_t kTimes = FATTR_ATIME | FATTR_MTIME;
  constexpr std::uint32_t kOwner = FATTR_MODE | FATTR_UID | FATTR_GID;
  const auto found = writable_node(id);
  if (!found) {
    return std::unexpected(found.error());
  }
  Node& node = **found;
  auto where = open_place(node);
  if (!where) {
    return std::unexpected(where.error());
  }
  const bool chown = (wanted.valid & (FATTR_UID | FATTR_GID)) != 0;
  const bool kill = (wanted.valid & FATTR_KILL_SUIDGID) != 0;
  if ((wanted.valid & FATTR_SIZE) != 0) {
    if (auto done = truncate(node, *where, wanted); !done) {
      return std::unexpected(done.error());
    }
  }
  // Who owns or fills a file anew does not inherit what it could do (notify_change() in Linux).
  if (((wanted.valid & FATTR_SIZE) != 0 || chown) && S_ISREG(where->status.stx_mode)) {
    if (auto done = drop_privileges(*node.share, *where, kill || chown); !done) {
      return std::unexpected(done.error());
    }
  }
  if ((wanted.valid & kOwner) != 0) {
    GuestOwner owner = owner_of(*node.share, *where);
    if ((wanted.valid & FATTR_MODE) != 0) {
      owner.mode = (owner.mode & S_IFMT) | (wanted.mode & kPermissions);
    }
    if ((wanted.valid & FATTR_UID) != 0) {
      owner.uid = wanted.uid;
    }
    if ((wanted.valid & FATTR_GID) != 0) {
      owner.gid = wanted.gid;
    }
    auto done = set_owner(*node.share, *where, owner);
    if (done && (wanted.valid & FATTR_MODE) != 0 && !S_ISLNK(owner.mode)) {
      done = chmod_acl(*node.share, *where, owner.mode);
    }
    if (!done) {
      return std::unexpected(done.error());
    }
  }
  if ((wanted.valid & kTimes) != 0) {
    const std::array<timespec, 2> times{
        time_of((wanted.valid & FATTR_ATIME) != 0, (wanted.valid & FATTR_ATIME_NOW) != 0,
                wanted.atime, wanted.atimensec),
        time_of((wanted.valid & FATTR_MTIME) != 0, (wanted.valid & FATTR_MTIME_NOW) != 0,
                wanted.mtime, wanted.mtimensec)};
    if (::utimensat(AT_FDCWD, where->path.c_str(), times.data(), 0) != 0) {
      return failed_call();
    }
  }
  where = open_place(node);
  if (!where) {
    return std::unexpected(where.error());
  }
  return show(node, *where);
}

Outcome<void> SharedFiles::drop_privileges(Share& share, const Place& place, bool modes) {
  // Asked for first: of a file that may not be written an attribute that it has not cannot be
  // removed either.
  if (has_capability(share, place) &&
      ::removexattr(place.path.c_str(), host_xattr(kCapabilityXattr).c_str()) != 0 &&
      errno != ENODATA) {
    return failed_call();
  }
  if (!modes) {
    return {};
  }
  GuestOwner owner = owner_of(share, place);
  std::uint32_t dropped = S_ISUID;
  // Without S_IXGRP it means mandatory locking, which is none of this (should_remove_suid()).
  if ((owner.mode & S_IXGRP) != 0) {
    dropped |= S_ISGID;
  }
  if (!S_ISREG(owner.mode) || (owner.mode & dropped) == 0) {
    return {};
  }
  owner.mode &= ~dropped;
  return set_owner(share, place, owner);
}

bool SharedFiles::has_capability(const Share& share, const Place& place) {
  const std::string capability = host_xattr(kCapabilityXattr);
  return share.has_xattrs(key_of(place.status)) &&
         ::getxattr(place.path.c_str(), capability.c_str(), nullptr, 0) >= 0;
}

Outcome<std::string> SharedFiles::read_link(std::uint64_t id) {
  const auto found = node(id);
  if (!found) {
    return std::unexpected(found.error());
  }
  const auto descriptor = nodes_.path(**found);
  if (!descriptor) {
    return std::unexpected(descriptor.error());
  }
  std::string target(PATH_MAX, '\0');
  const ssize_t size = ::readlinkat((*descriptor)->get(), "", target.data(), target.size());
  if (size < 0) {
    return std::unexpected(errno == ENOENT ? EINVAL : errno);  // what is no link is said to be none
  }
  target.resize(static_cast<std::size_t>(size));
  return target;
}

Outcome<fuse_kstatfs> SharedFiles::file_system(std::uint64_t id) {
  const auto found = node(id);
  if (!found) {
    return std::unexpected(found.error());
  }
  struct statfs status{};
  if (::fstatfs((*found)->share->root.get(), &status) != 0) {
    return failed_call();
  }
  fuse_kstatfs result{};
  result.blocks = status.f_blocks;
  result.bfree = status.f_bfree;
  result.bavail = status.f_bavail;
  result.files = status.f_files;
  result.ffree = status.f_ffree;
  result.bsize = static_cast<std::uint32_t>(status.f_bsize);
  result.namelen = static_cast<std::uint32_t>(status.f_namelen);
  result.frsize = static_cast<std::uint32_t>(status.f_frsize);
  return result;
}

}  // namespace msb::virtio
