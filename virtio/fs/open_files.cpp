// SPDX-License-Identifier: Apache-2.0
// Files and directories that the guest has open.
#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "virtio/fs/shared_files.hpp"

namespace msb::virtio {

namespace {

// What of open(2)'s flags is the guest's to choose. Its kernel has done the rest: O_APPEND is left
// out since each WRITE says it again, O_DIRECT since its buffers are what the host cannot promise
// to be aligned.
constexpr std::uint32_t kOpenFlags = O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC | O_NOATIME;

bool writes(std::uint32_t flags) {
  return (flags & O_ACCMODE) != O_RDONLY;
}

constexpr std::uint64_t kMostCopied = 16U << 20;  // bytes a request, so that others have their turn

}  // namespace

Outcome<Handle> SharedFiles::add_handle(Node& node, OpenFile file) {
  if (handles_.size() >= limits_.handles) {
    return std::unexpected(ENFILE);
  }
  Handle handle{next_handle_++, std::make_shared<OpenFile>(std::move(file))};
  handles_.emplace(handle.number, handle.file);
  // The last few are enough, and what a guest opens a thousand times costs no more each time.
  constexpr std::size_t kRemembered = 64;
  std::erase_if(node.opened, [](const auto& each) { return each.expired(); });
  if (node.opened.size() == kRemembered) {
    node.opened.erase(node.opened.begin());
  }
  node.opened.emplace_back(std::shared_ptr<const Fd>(handle.file, &handle.file->file));
  return handle;
}

std::shared_ptr<OpenFile> SharedFiles::find(std::uint64_t handle) const {
  const auto found = handles_.find(handle);
  const bool served = found != handles_.end() && !found->second->share->ended;
  return served ? found->second : nullptr;
}

Outcome<Handle> SharedFiles::open(std::uint64_t id, std::uint32_t flags, bool drop) {
  const bool to_write = writes(flags) || (flags & O_TRUNC) != 0;
  const auto found = to_write ? writable_node(id) : node(id);
  if (!found) {
    return std::unexpected(found.error());
  }
  Node& node = **found;
  if (!S_ISREG(node.type)) {
    return std::unexpected(S_ISDIR(node.type) ? EISDIR : ENXIO);
  }
  const auto where = open_place(node);
  if (!where) {
    return std::unexpected(where.error());
  }
  // What is only read is left as it is, also its time of access.
  flags = (flags & kOpenFlags) | (node.share->read_only ? std::uint32_t{O_NOATIME} : 0);
  auto file = reopen(where->descriptor->get(), static_cast<int>(flags));
  // Only the owner may ask for O_NOATIME (open(2)).
  if (!file && file.error() == EPERM && (flags & O_NOATIME) != 0) {
    file = reopen(where->descriptor->get(), static_cast<int>(flags) & ~O_NOATIME);
  }
  if (!file) {
    return std::unexpected(file.error());
  }
  if ((flags & O_TRUNC) != 0) {
    if (auto dropped = drop_privileges(*node.share, *where, drop); !dropped) {
      return std::unexpected(dropped.error());
    }
  }
  OpenFile opened;
  opened.file = std::move(*file);
  opened.node = id;
  opened.share = node.share;
  opened.writable = writes(flags);
  opened.capability = opened.writable && has_capability(*node.share, *where);
  return add_handle(node, std::move(opened));
}

Outcome<SharedFiles::Created> SharedFiles::create(std::uint64_t parent, std::string_view name,
                                                  std::uint32_t flags, std::uint32_t mode,
                                                  const Caller& caller, bool drop) {
  const auto where = slot(parent, name, true);
  if (!where) {
    return std::unexpected(where.error());
  }
  if (handles_.size() >= limits_.handles) {
    return std::unexpected(ENFILE);
  }
  const NewInode made = new_inode_in(*where->directory, where->descriptor->get(),
                                     S_IFREG | (mode & 07777), 0, caller);
  // Made by this call or not at all: what is there already is never opened by its name.
  auto file = open_entry(where->descriptor->get(), where->name,
                         static_cast<int>(flags & kOpenFlags) | O_CREAT | O_EXCL,
                         OwnerRule::host_mode(made.owner.mode));
  if (!file && file.error() == EEXIST && (flags & O_EXCL) == 0) {
    const auto entry = enter(*where);
    if (!entry) {
      return std::unexpected(entry.error());
    }
    auto handle = open(entry->node, flags, drop);
    if (!handle) {
      nodes_.forget(entry->node, 1);
      return std::unexpected(handle.error());
    }
    const auto attr = attributes(entry->node);
    return Created{{entry->node, attr ? attr->shown : entry->attr}, std::move(*handle)};
  }
  if (!file) {
    return std::unexpected(file.error());
  }
  auto entry = enter_made(*where, made, *file);
  if (!entry) {
    return std::unexpected(entry.error());
  }
  OpenFile opened;
  opened.file = std::move(*file);
  opened.node = entry->node;
  opened.share = where->directory->share;
  opened.writable = writes(flags);
  auto handle = add_handle(*nodes_.find(entry->node), std::move(opened));
  return Created{*entry, std::move(*handle)};
}

Outcome<SharedFiles::Created> SharedFiles::create_unnamed(std::uint64_t parent, std::uint32_t flags,
                                                          std::uint32_t mode,
                                                          const Caller& caller) {
  const auto directory = writable_node(parent);
  if (!directory) {
    return std::unexpected(directory.error());
  }
  if (!S_ISDIR((*directory)->type)) {
    return std::unexpected(ENOTDIR);
  }
  if (handles_.size() >= limits_.handles) {
    return std::unexpected(ENFILE);
  }
  const auto path = nodes_.path(**directory);
  if (!path) {
    return std::unexpected(path.error());
  }
  const NewInode made =
      new_inode_in(**directory, (*path)->get(), S_IFREG | (mode & 07777), 0, caller);
  const std::uint32_t wanted =
      (flags & kOpenFlags & ~std::uint32_t{O_TRUNC}) | O_TMPFILE | O_CLOEXEC;
  Fd file(::open(path_to((*path)->get()).c_str(), static_cast<int>(wanted | (flags & O_EXCL)),
                 OwnerRule::host_mode(made.owner.mode)));
  if (!file) {
    return failed_call();
  }
  Fd kept(::open(path_to(file.get()).c_str(), O_PATH | O_CLOEXEC));
  if (!kept) {
    return failed_call();
  }
  const auto status = examine(file.get());
  if (!status) {
    return std::unexpected(status.error());
  }
  const Place place{*status, path_to(file.get()), true, {}};
  if (auto done = initialize(*(*directory)->share, place, made); !done) {
    return std::unexpected(done.error());
  }
  auto entered = nodes_.enter(**directory, {}, *status, std::move(kept));
  if (!entered) {
    return std::unexpected(entered.error());
  }
  NodeTable::rename(**entered, 0, {});
  OpenFile opened;
  opened.file = std::move(file);
  opened.node = (*entered)->id;
  opened.share = (*directory)->share;
  opened.writable = writes(flags);
  auto handle = add_handle(**entered, std::move(opened));
  return Created{{(*entered)->id, show(**entered, place)}, std::move(*handle)};
}

Outcome<Handle> SharedFiles::open_directory(std::uint64_t id) {
  const auto found = node(id);
  if (!found) {
    return std::unexpected(found.error());
  }
  if (!S_ISDIR((*found)->type)) {
    return std::unexpected(ENOTDIR);
  }
  const auto path = nodes_.path(**found);
  if (!path) {
    return std::unexpected(path.error());
  }
  auto file = reopen((*path)->get(), O_RDONLY | O_DIRECTORY);
  if (!file) {
    return std::unexpected(file.error());
  }
  OpenFile opened;
  opened.file = std::move(*file);
  opened.node = id;
  opened.share = (*found)->share;
  opened.directory = true;
  return add_handle(**found, std::move(opened));
}

namespace {

// linux_dirent64 of getdents64(2).
struct HostEntry {
  std::uint64_t inode;
  std::uint64_t next;
  std::uint16_t size;
  std::uint8_t type;
  const char* name;
};

// The record at the front, which the kernel wrote whole.
HostEntry entry_at(std::span<const std::byte> bytes) {
  HostEntry entry{};
  std::memcpy(&entry.inode, &bytes[offsetof(dirent64, d_ino)], sizeof entry.inode);
  std::memcpy(&entry.next, &bytes[offsetof(dirent64, d_off)], sizeof entry.next);
  std::memcpy(&entry.size, &bytes[offsetof(dirent64, d_reclen)], sizeof entry.size);
  std::memcpy(&entry.type, &bytes[offsetof(dirent64, d_type)], sizeof entry.type);
  entry.name = reinterpret_cast<const char*>(&bytes[offsetof(dirent64, d_name)]);
  return entry;
}

}  // namespace

Outcome<void> SharedFiles::list(const std::shared_ptr<OpenFile>& directory, std::uint64_t offset,
                                std::size_t room,
                                const std::function<bool(const DirectoryEntry&)>& take) {
  constexpr std::size_t kLeast = 1024;  // holds any one entry
  constexpr std::size_t kMost = std::size_t{64} * 1024;
  const int file = directory->file.get();
  if (ahead_.directory.lock() != directory || ahead_.offset != offset || offset == 0) {
    if (::lseek64(file, static_cast<off64_t>(offset), SEEK_SET) < 0) {
      return failed_call();
    }
    ahead_ = {directory, {}, 0, offset};
  }
  const auto status = examine(file);
  if (!status) {
    return std::unexpected(status.error());
  }
  const std::uint64_t device = key_of(*status).device;
  while (true) {
    if (ahead_.taken == ahead_.bytes.size()) {
      ahead_.bytes.resize(std::clamp(room, kLeast, kMost));
      ahead_.taken = 0;
      const long size = ::syscall(SYS_getdents64, file, ahead_.bytes.data(), ahead_.bytes.size());
      const int code = errno;
      ahead_.bytes.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
      if (size < 0) {
        return std::unexpected(code);
      }
      if (size == 0) {
        return {};
      }
    }
    const HostEntry entry = entry_at(std::span(ahead_.bytes).subspan(ahead_.taken));
    if (!take({entry.name, inode_number(device, entry.inode), entry.next, entry.type})) {
      return {};
    }
    ahead_.taken += entry.size;
    ahead_.offset = entry.next;
  }
}

Outcome<void> SharedFiles::prepare_write(OpenFile& file, bool drop) {
  if (!file.capability && !drop) {
    return {};
  }
  const auto status = examine(file.file.get());
  if (!status) {
    return std::unexpected(status.error());
  }
  const Place place{*status, path_to(file.file.get()), true, {}};
  auto dropped = drop_privileges(*file.share, place, drop);
  if (dropped) {
    file.capability = false;
  }
  return dropped;
}

Outcome<void> SharedFiles::allocate(OpenFile& file, std::uint64_t offset, std::uint64_t length,
                                    std::uint32_t mode, const Caller& caller) {
  constexpr std::uint32_t kModes = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE |
                                   FALLOC_FL_ZERO_RANGE | FALLOC_FL_COLLAPSE_RANGE |
                                   FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE;
  if ((mode & ~kModes) != 0) {
    return std::unexpected(EOPNOTSUPP);
  }
  if (auto prepared = prepare_write(file, caller.uid != 0); !prepared) {
    return prepared;
  }
  if (::fallocate(file.file.get(), static_cast<int>(mode), static_cast<off_t>(offset),
                  static_cast<off_t>(length)) != 0) {
    return failed_call();
  }
  return {};
}

Outcome<std::uint64_t> SharedFiles::seek(const OpenFile& file, std::uint64_t offset,
                                         std::uint32_t whence) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    return std::unexpected(EINVAL);  // the others are the guest's own business
  }
  const off_t found =
      ::lseek(file.file.get(), static_cast<off_t>(offset), static_cast<int>(whence));
  if (found < 0) {
    return failed_call();
  }
  return static_cast<std::uint64_t>(found);
}

Outcome<std::uint32_t> SharedFiles::copy_range(const OpenFile& from, std::uint64_t from_offset,
                                               OpenFile& to, std::uint64_t to_offset,
                                               std::uint64_t length, const Caller& caller) {
  if (auto prepared = prepare_write(to, caller.uid != 0); !prepared) {
    return std::unexpected(prepared.error());
  }
  auto in = static_cast<off64_t>(from_offset);
  auto out = static_cast<off64_t>(to_offset);
  const ssize_t copied = ::copy_file_range(from.file.get(), &in, to.file.get(), &out,
                                           std::min(length, kMostCopied), 0);
  if (copied < 0) {
    return failed_call();
  }
  return static_cast<std::uint32_t>(copied);
}

Outcome<void> SharedFiles::flush(const OpenFile& file) {
  const int copy = ::fcntl(file.file.get(), F_DUPFD_CLOEXEC, 0);
  if (copy < 0 || ::close(copy) != 0) {
    return failed_call();
  }
  return {};
}

Outcome<void> SharedFiles::sync_file_systems() {
  Outcome<void> done;
  for (const auto& share : shares_) {
    if (share->read_only) {
      continue;
    }
    const auto opened = reopen(share->root.get(), O_RDONLY);
    if (!opened) {
      done = std::unexpected(opened.error());
    } else if (::syncfs(opened->get()) != 0) {
      done = failed_call();
    }
  }
  return done;
}

}  // namespace msb::virtio
