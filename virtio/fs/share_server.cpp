// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/share_server.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <optional>
#include <string>

#include "virtio/fs/fuse_protocol.hpp"
#include "virtio/fs/tree_server.hpp"

namespace msb::virtio {

namespace {

constexpr std::uint64_t kMaxOffset = std::numeric_limits<std::int64_t>::max();

FuseReply reply_nothing(const Outcome<void>& done) {
  return done ? FuseReply{} : refuse(done.error());
}

}  // namespace

FuseReply ShareServer::init(FuseArguments arguments) {
  // The reserved end of fuse_init_in came with later minor versions; the first 16 bytes are always
  // there.
  const std::size_t size = std::min(arguments.size(), sizeof(fuse_init_in));
  const auto in = arguments.take_part<fuse_init_in>(std::max<std::size_t>(size, 16));
  if (!in) {
    return refuse(EINVAL);
  }
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = std::min(in->minor, kFuseMinorVersion);
  if (in->major != FUSE_KERNEL_VERSION) {
    out.minor = kFuseMinorVersion;
    return reply_with(out);  // another major version: the guest comes again with ours, or gives up
  }
  out.max_readahead = in->max_readahead;
  constexpr std::uint64_t kWanted = FUSE_ASYNC_READ | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS |
                                    FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |
                                    FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO |
                                    FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |
                                    FUSE_POSIX_ACL | FUSE_DONT_MASK | FUSE_HANDLE_KILLPRIV_V2 |
                                    FUSE_SETXATTR_EXT | FUSE_INIT_EXT | kFuseDirectIoAllowMmap;
  std::uint64_t offered = in->flags;
  if ((in->flags & FUSE_INIT_EXT) != 0) {
    offered |= std::uint64_t{in->flags2} << 32;
  }
  const std::uint64_t taken = offered & kWanted;
  long_setxattr_ = (taken & FUSE_SETXATTR_EXT) != 0;
  out.flags = static_cast<std::uint32_t>(taken);
  out.flags2 = static_cast<std::uint32_t>(taken >> 32);
  out.max_background = 64;
  out.congestion_threshold = 48;
  out.max_write = kFuseMaxTransfer;
  out.time_gran = 1;
  out.max_pages = kFuseMaxPages;
  return reply_with(out);
}

FuseAnswer ShareServer::serve(const fuse_in_header& header, FuseArguments arguments,
                              std::size_t request_size, std::size_t reply_room) {
  switch (header.opcode) {
    case FUSE_INIT:
      files_.reset();  // a mount of its own: nothing of an earlier one goes on
      return init(arguments);
    case FUSE_DESTROY:
      files_.reset();
      return FuseReply{};
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
      forget(header, arguments);
      return FuseSilence{};
    case FUSE_SYNCFS:
      return reply_nothing(files_.sync_file_systems());
    default:
      return serve_node(header, arguments, request_size, reply_room);
  }
}

FuseReply ShareServer::lookup_root(std::uint64_t node) {
  const auto attr = files_.attributes(node);
  return attr ? reply_with(entry_out({node, attr->shown})) : refuse(attr.error());
}

void ShareServer::forget(const fuse_in_header& header, FuseArguments arguments) {
  if (header.opcode == FUSE_FORGET) {
    if (const auto in = arguments.take<fuse_forget_in>()) {
      files_.forget(header.nodeid, in->nlookup);
    }
    return;
  }
  const auto in = arguments.take<fuse_batch_forget_in>();
  for (std::uint32_t i = 0; in && i < in->count; ++i) {
    const auto one = arguments.take<fuse_forget_one>();
    if (!one) {
      return;
    }
    files_.forget(one->nodeid, one->nlookup);
  }
}

// --- shares: what answers are made of ---

std::uint64_t ShareServer::valid_seconds(std::uint64_t node) {
  const Share* const share = files_.share_of(node);
  switch (share == nullptr ? ShareCache::kNever : share->cache) {
    case ShareCache::kNever:
      return 0;
    case ShareCache::kAuto:
      return files_.is_beside_locks(node) ? 0 : 1;
    case ShareCache::kAlways:
      break;
  }
  return kFuseForeverSeconds;
}

std::uint32_t ShareServer::open_flags(std::uint64_t node) {
  const Share* const share = files_.share_of(node);
  if (share == nullptr) {
    return 0;
  }
  std::uint32_t flags = share->late_errors ? 0 : kFopenNoFlush;
  if (share->cache == ShareCache::kNever) {
    flags |= FOPEN_DIRECT_IO;
  } else if (share->cache == ShareCache::kAlways) {
    flags |= FOPEN_KEEP_CACHE;
  }
  return flags;
}

fuse_entry_out ShareServer::entry_out(const Entry& entry) {
  fuse_entry_out out{};
  out.nodeid = entry.node;
  out.entry_valid = valid_seconds(entry.node);
  out.attr_valid = out.entry_valid;
  out.attr = entry.attr;
  return out;
}

FuseReply ShareServer::reply_entry(const Outcome<Entry>& entry) {
  return entry ? reply_with(entry_out(*entry)) : refuse(entry.error());
}

FuseReply ShareServer::reply_handle(const Outcome<Handle>& handle, std::uint64_t node) {
  if (!handle) {
    return refuse(handle.error());
  }
  fuse_open_out out{};
  out.fh = handle->number;
  out.open_flags = open_flags(node);
  return reply_with(out);
}

FuseReply ShareServer::reply_created(const Outcome<SharedFiles::Created>& created) {
  if (!created) {
    return refuse(created.error());
  }
  FuseReply reply = reply_with(entry_out(created->entry));
  const FuseReply opened = reply_handle(created->handle, created->entry.node);
  reply.payload.insert(reply.payload.end(), opened.payload.begin(), opened.payload.end());
  return reply;
}

FuseReply ShareServer::reply_attr(std::uint64_t node, const Outcome<fuse_attr>& attr) {
  if (!attr) {
    return refuse(attr.error());
  }
  fuse_attr_out out{};
  out.attr_valid = valid_seconds(node);
  out.attr = *attr;
  return reply_with(out);
}

// --- shares: requests ---

FuseAnswer ShareServer::serve_node(const fuse_in_header& header, FuseArguments arguments,
                                   std::size_t request_size, std::size_t reply_room) {
  const std::uint64_t node = header.nodeid;
  switch (header.opcode) {
    case FUSE_GETATTR: {
      const auto found = files_.attributes(node);
      return found ? reply_attr(node, found->shown) : refuse(found.error());
    }
    case FUSE_SETATTR: {
      const auto in = arguments.take<fuse_setattr_in>();
      return in ? reply_attr(node, files_.set_attributes(node, *in)) : refuse(EINVAL);
    }
    case kFuseStatx: {
      const auto found = files_.attributes(node);
      if (!found) {
        return refuse(found.error());
      }
      const fuse_attr* const attr = &found->shown;
      const struct statx* const status = &found->status;
      FuseStatxOut out{};
      out.attr_valid = valid_seconds(node);
      out.stat.mask = status->stx_mask & (STATX_BASIC_STATS | STATX_BTIME);
      out.stat.blksize = attr->blksize;
      out.stat.nlink = attr->nlink;
      out.stat.uid = attr->uid;
      out.stat.gid = attr->gid;
      out.stat.mode = static_cast<std::uint16_t>(attr->mode);
      out.stat.ino = attr->ino;
      out.stat.size = attr->size;
      out.stat.blocks = attr->blocks;
      out.stat.atime = {status->stx_atime.tv_sec, status->stx_atime.tv_nsec, 0};
      out.stat.btime = {status->stx_btime.tv_sec, status->stx_btime.tv_nsec, 0};
      out.stat.ctime = {status->stx_ctime.tv_sec, status->stx_ctime.tv_nsec, 0};
      out.stat.mtime = {status->stx_mtime.tv_sec, status->stx_mtime.tv_nsec, 0};
      out.stat.rdev_major = attr->rdev >> 8 & 0xfff;  // new_decode_dev() in Linux
      out.stat.rdev_minor = (attr->rdev & 0xff) | (attr->rdev >> 12 & 0xfff00);
      return reply_with(out);
    }
    case FUSE_READLINK: {
      const auto target = files_.read_link(node);
      return target ? reply_bytes(std::as_bytes(std::span(*target))) : refuse(target.error());
    }
    case FUSE_STATFS: {
      fuse_statfs_out out{};
      const auto status = files_.file_system(node);
      if (!status) {
        return refuse(status.error());
      }
      out.st = *status;
      return reply_with(out);
    }
    case FUSE_OPEN: {
      const auto in = arguments.take<fuse_open_in>();
      return in ? reply_handle(
                      files_.open(node, in->flags, (in->open_flags & FUSE_OPEN_KILL_SUIDGID) != 0),
                      node)
                : refuse(EINVAL);
    }
    case FUSE_OPENDIR:
      return reply_handle(files_.open_directory(node), node);
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
      return list(node, arguments, reply_room, header.opcode == FUSE_READDIRPLUS);
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_READ:
    case FUSE_WRITE:
    case FUSE_FLUSH:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
    case FUSE_FALLOCATE:
    case FUSE_LSEEK:
    case FUSE_COPY_FILE_RANGE:
      return serve_open_file(header, arguments, request_size, reply_room);
    case FUSE_SETXATTR:
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
    case FUSE_REMOVEXATTR:
      return serve_xattr(header, arguments, reply_room);
    case FUSE_GETLK:
    case FUSE_SETLK:
    case FUSE_SETLKW:
      return lock(header, arguments);
    case FUSE_ACCESS:
    case FUSE_BMAP:
    case FUSE_IOCTL:
    case FUSE_POLL:
    case FUSE_SETUPMAPPING:
    case FUSE_REMOVEMAPPING:
      return refuse(ENOSYS);  // the guest's kernel does what it can by itself
    default:
      return serve_entry(header, arguments);
  }
}

FuseAnswer ShareServer::serve_entry(const fuse_in_header& header, FuseArguments arguments) {
  const std::uint64_t node = header.nodeid;
  Caller caller{header.uid, header.gid, 0};
  switch (header.opcode) {
    case FUSE_LOOKUP: {
      const std::size_t room = arguments.size();
      const auto name = arguments.take_text();
      if (!name) {
        return refuse(room > NAME_MAX ? ENAMETOOLONG : EINVAL);
      }
      const auto entry = files_.lookup(node, *name);
      if (!entry && entry.error() == ENOENT) {
        // The guest may go by that as long as by what is there.
        fuse_entry_out out{};
        out.entry_valid = valid_seconds(node);
        return reply_with(out);
      }
      return reply_entry(entry);
    }
    case FUSE_MKNOD: {
      const auto in = arguments.take<fuse_mknod_in>();
      const auto name = arguments.take_text();
      caller.umask = in ? in->umask : 0;
      return in && name ? reply_entry(files_.make_node(node, *name, in->mode, in->rdev, caller))
                        : refuse(EINVAL);
    }
    case FUSE_MKDIR: {
      const auto in = arguments.take<fuse_mkdir_in>();
      const auto name = arguments.take_text();
      caller.umask = in ? in->umask : 0;
      return in && name ? reply_entry(files_.make_directory(node, *name, in->mode, caller))
                        : refuse(EINVAL);
    }
    case FUSE_SYMLINK: {
      const auto name = arguments.take_text();
      const auto target = arguments.take_text();
      return name && target
                 ? reply_entry(files_.make_link(node, *name, std::string(*target), caller))
                 : refuse(EINVAL);
    }
    case FUSE_LINK: {
      const auto in = arguments.take<fuse_link_in>();
      const auto name = arguments.take_text();
      if (!in || !name) {
        return refuse(EINVAL);
      }
      return is_shared_node(in->oldnodeid) ? reply_entry(files_.link(in->oldnodeid, node, *name))
                                           : refuse(EXDEV);
    }
    case FUSE_UNLINK:
    case FUSE_RMDIR: {
      const auto name = arguments.take_text();
      return name ? reply_nothing(files_.unlink(node, *name, header.opcode == FUSE_RMDIR))
                  : refuse(EINVAL);
    }
    case FUSE_RENAME:
    case FUSE_RENAME2: {
      fuse_rename2_in in{};
      if (header.opcode == FUSE_RENAME) {
        const auto old = arguments.take<fuse_rename_in>();
        if (!old) {
          return refuse(EINVAL);
        }
        in.newdir = old->newdir;
      } else {
        const auto current = arguments.take<fuse_rename2_in>();
        if (!current) {
          return refuse(EINVAL);
        }
        in = *current;
      }
      const auto name = arguments.take_text();
      const auto new_name = arguments.take_text();
      if (!name || !new_name) {
        return refuse(EINVAL);
      }
      return is_shared_node(in.newdir)
                 ? reply_nothing(files_.rename(node, *name, in.newdir, *new_name, in.flags))
                 : refuse(EXDEV);
    }
    case FUSE_CREATE:
    case FUSE_TMPFILE: {
      const auto in = arguments.take<fuse_create_in>();
      const auto name = arguments.take_text();
      if (!in || !name) {
        return refuse(EINVAL);
      }
      caller.umask = in->umask;
      if (header.opcode == FUSE_TMPFILE) {
        return reply_created(files_.create_unnamed(node, in->flags, in->mode, caller));
      }
      return reply_created(files_.create(node, *name, in->flags, in->mode, caller,
                                         (in->open_flags & FUSE_OPEN_KILL_SUIDGID) != 0));
    }
    default:
      return refuse(ENOSYS);
  }
}

FuseReply ShareServer::list(std::uint64_t id, FuseArguments arguments, std::size_t reply_room,
                            bool plus) {
  const auto in = arguments.take<fuse_read_in>();
  if (!in) {
    return refuse(EINVAL);
  }
  const auto directory = files_.find(in->fh);
  if (directory == nullptr || !directory->directory || directory->node != id) {
    return refuse(EBADF);
  }
  FuseListing listing(std::min<std::size_t>(in->size, reply_room), plus);
  const auto done = files_.list(directory, in->offset, std::min<std::size_t>(in->size, reply_room),
                                [&](const DirectoryEntry& found) {
                                  if (!listing.fits(found.name)) {
                                    return false;
                                  }
                                  fuse_entry_out out{};
                                  if (plus && found.name != "." && found.name != "..") {
                                    if (const auto entry = files_.lookup(id, found.name)) {
                                      out = entry_out(*entry);
                                    }
                                  }
                                  DirectoryEntry shown = found;
                                  if (out.nodeid != 0) {
                                    shown.inode = out.attr.ino;
                                    shown.type = static_cast<std::uint8_t>(IFTODT(out.attr.mode));
                                  }
                                  listing.add(shown, out);
                                  return true;
                                });
  // An error behind entries comes again with the next request.
  return done || !listing.empty() ? listing.take() : refuse(done.error());
}

// The handle: of a node of this number, for files or for directories.
std::shared_ptr<OpenFile> ShareServer::open_file(const fuse_in_header& header, std::uint64_t handle,
                                                 bool directory) const {
  auto file = files_.find(handle);
  if (file != nullptr && (file->node != header.nodeid || file->directory != directory)) {
    file.reset();
  }
  return file;
}

FuseReply ShareServer::lock(const fuse_in_header& header, FuseArguments arguments) {
  const auto in = arguments.take<fuse_lk_in>();
  if (!in) {
    return refuse(EINVAL);
  }
  const auto file = open_file(header, in->fh, false);
  const bool to_write =
      in->lk.type == F_WRLCK && (in->lk_flags & FUSE_LK_FLOCK) == 0 && header.opcode != FUSE_GETLK;
  if (file == nullptr || (to_write && !file->writable)) {
    return refuse(EBADF);
  }
  if (in->lk.type > F_UNLCK) {
    return refuse(EINVAL);
  }
  const LockRange range{in->lk.start, in->lk.end, static_cast<short>(in->lk.type)};
  if (header.opcode == FUSE_GETLK) {
    const auto found = files_.locks().find_conflict(*file, in->owner, range);
    if (!found) {
      return refuse(found.error());
    }
    fuse_lk_out out{};  // with no process: the guest could not see it
    out.lk.start = found->first;
    out.lk.end = found->last;
    out.lk.type = static_cast<std::uint32_t>(found->type);
    return reply_with(out);
  }
  const auto done = (in->lk_flags & FUSE_LK_FLOCK) != 0
                        ? FileLocks::set_whole(*file, range.type)
                        : files_.locks().set(*file, in->owner, range);
  if (done && range.type != F_UNLCK) {
    files_.note_lock(file->node);
  }
  // Nothing could end the waiting for a lock (guestkernel/patches/virtio-fs-locks.patch).
  const bool would_wait = header.opcode == FUSE_SETLKW && !done && done.error() == EAGAIN;
  return would_wait ? refuse(EOPNOTSUPP) : reply_nothing(done);
}

FuseAnswer ShareServer::serve_open_file(const fuse_in_header& header, FuseArguments arguments,
                                        std::size_t request_size, std::size_t reply_room) {
  const Caller caller{header.uid, header.gid, 0};
  const auto opened = [&](std::uint64_t handle, bool directory) {
    return open_file(header, handle, directory);
  };
  switch (header.opcode) {
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: {
      const auto in = arguments.take<fuse_release_in>();
      if (!in || opened(in->fh, header.opcode == FUSE_RELEASEDIR) == nullptr) {
        return refuse(in ? EBADF : EINVAL);
      }
      files_.release(in->fh);
      return FuseReply{};
    }
    case FUSE_READ: {
      const auto in = arguments.take<fuse_read_in>();
      if (!in || in->offset > kMaxOffset) {
        return refuse(EINVAL);
      }
      const auto file = opened(in->fh, false);
      if (file == nullptr) {
        return refuse(EBADF);
      }
      const std::uint64_t size = std::min<std::uint64_t>(
          {in->size, reply_room, kFuseMaxTransfer, kMaxOffset - in->offset});
      if (size == 0) {
        return FuseReply{};
      }
      return FuseRead{file->file.get(), in->offset, size, file};
    }
    case FUSE_WRITE: {
      const auto in = arguments.take<fuse_write_in>();
      if (!in || in->size > kFuseMaxTransfer || in->size != request_size - kFuseWriteHeader ||
          in->offset > kMaxOffset - in->size) {
        return refuse(EINVAL);
      }
      const auto file = opened(in->fh, false);
      if (file == nullptr || !file->writable) {
        return refuse(EBADF);
      }
      const auto prepared =
          files_.prepare_write(*file, (in->write_flags & FUSE_WRITE_KILL_SUIDGID) != 0);
      if (!prepared) {
        return refuse(prepared.error());
      }
      // What comes out of the guest's cache has its place.
      const bool at_end = (in->flags & O_APPEND) != 0 && (in->write_flags & FUSE_WRITE_CACHE) == 0;
      return FuseWrite{file, in->offset, in->size, at_end};
    }
    case FUSE_FLUSH: {
      const auto in = arguments.take<fuse_flush_in>();
      if (!in) {
        return refuse(EINVAL);
      }
      const auto file = opened(in->fh, false);
      if (file == nullptr) {
        return refuse(EBADF);
      }
      files_.locks().drop(file->node, in->lock_owner);
      return reply_nothing(SharedFiles::flush(*file));
    }
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR: {
      const auto in = arguments.take<fuse_fsync_in>();
      if (!in) {
        return refuse(EINVAL);
      }
      auto file = opened(in->fh, header.opcode == FUSE_FSYNCDIR);
      if (file == nullptr) {
        return refuse(EBADF);
      }
      return FuseSync{std::move(file), (in->fsync_flags & FUSE_FSYNC_FDATASYNC) == 0};
    }
    case FUSE_FALLOCATE: {
      const auto in = arguments.take<fuse_fallocate_in>();
      if (!in) {
        return refuse(EINVAL);
      }
      const auto file = opened(in->fh, false);
      if (file == nullptr || !file->writable) {
        return refuse(EBADF);
      }
      return reply_nothing(files_.allocate(*file, in->offset, in->length, in->mode, caller));
    }
    case FUSE_LSEEK: {
      const auto in = arguments.take<fuse_lseek_in>();
      if (!in) {
        return refuse(EINVAL);
      }
      const auto file = opened(in->fh, false);
      if (file == nullptr) {
        return refuse(EBADF);
      }
      const auto offset = files_.seek(*file, in->offset, in->whence);
      return offset ? reply_with(fuse_lseek_out{*offset}) : refuse(offset.error());
    }
    case FUSE_COPY_FILE_RANGE: {
      const auto in = arguments.take<fuse_copy_file_range_in>();
      if (!in || in->flags != 0) {
        return refuse(EINVAL);
      }
      const auto from = opened(in->fh_in, false);
      const auto to = files_.find(in->fh_out);
      if (from == nullptr || to == nullptr || to->node != in->nodeid_out || !to->writable) {
        return refuse(EBADF);
      }
      const auto copied = files_.copy_range(*from, in->off_in, *to, in->off_out, in->len, caller);
      if (!copied) {
        return refuse(copied.error());
      }
      fuse_write_out out{};
      out.size = *copied;
      return reply_with(out);
    }
    default:
      return refuse(ENOSYS);
  }
}

FuseAnswer ShareServer::serve_xattr(const fuse_in_header& header, FuseArguments arguments,
                                    std::size_t reply_room) {
  const std::uint64_t node = header.nodeid;
  // How large it is, or the thing itself when there is room for it.
  const auto give = [&](const Outcome<std::vector<std::byte>>& found, std::uint32_t room) {
    if (!found) {
      return refuse(found.error());
    }
    if (room == 0) {
      fuse_getxattr_out out{};
      out.size = static_cast<std::uint32_t>(found->size());
      return reply_with(out);
    }
    return found->size() <= std::min<std::size_t>(room, reply_room) ? reply_bytes(*found)
                                                                    : refuse(ERANGE);
  };
  switch (header.opcode) {
    case FUSE_GETXATTR: {
      const auto in = arguments.take<fuse_getxattr_in>();
      const auto name = arguments.take_text();
      return in && name ? give(files_.get_xattr(node, *name, in->size), in->size) : refuse(EINVAL);
    }
    case FUSE_LISTXATTR: {
      const auto in = arguments.take<fuse_getxattr_in>();
      return in ? give(files_.list_xattrs(node), in->size) : refuse(EINVAL);
    }
    case FUSE_REMOVEXATTR: {
      const auto name = arguments.take_text();
      return name ? reply_nothing(files_.remove_xattr(node, *name)) : refuse(EINVAL);
    }
    default: {
      const auto in = long_setxattr_
                          ? arguments.take<fuse_setxattr_in>()
                          : arguments.take_part<fuse_setxattr_in>(FUSE_COMPAT_SETXATTR_IN_SIZE);
      const auto name = arguments.take_text();
      if (!in || !name) {
        return refuse(EINVAL);
      }
      const auto value = arguments.take_bytes(in->size);
      return value ? reply_nothing(
                         files_.set_xattr(node, *name, *value, in->flags, in->setxattr_flags))
                   : refuse(EINVAL);
    }
  }
}

}  // namespace msb::virtio
