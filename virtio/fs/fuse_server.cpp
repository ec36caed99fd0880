// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/fuse_server.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/limits.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

#include "virtio/fs/fuse_protocol.hpp"

namespace msb::virtio {

namespace {

// Nothing of ours in the tree ever changes but that shares are added.
constexpr std::uint64_t kForeverSeconds = 1U << 30;
constexpr std::uint32_t kBlockSize = 4096;
// What INIT allows; a guest that asks for more gets this much.
constexpr std::uint64_t kMaxTransfer = std::uint64_t{kFuseMaxPages} * kBlockSize;
constexpr std::size_t kMaxListing = std::size_t{64} * 1024;
constexpr std::uint32_t kFopenNoFlush = 1U << 5;  // 7.35
constexpr std::uint64_t kMaxOffset = std::numeric_limits<std::int64_t>::max();

FuseReply refuse(int error) {
  return {-error, {}};
}

template <typename T>
FuseReply reply_with(const T& value) {
  FuseReply reply;
  append(reply.payload, value);
  return reply;
}

FuseReply reply_nothing(const Outcome<void>& done) {
  return done ? FuseReply{} : refuse(done.error());
}

FuseReply reply_bytes(std::span<const std::byte> bytes) {
  return {0, {bytes.begin(), bytes.end()}};
}

bool is_shared(std::uint64_t node) {
  return node > std::numeric_limits<std::uint32_t>::max();
}

fuse_attr attributes(std::uint64_t id, const SharedTree::Node& node) {
  fuse_attr attr{};
  // Not the number of a file of the host's, all of which show one device.
  attr.ino = id | std::uint64_t{0xffff} << 48;
  attr.size = node.size;
  attr.blocks = (node.size + 511) / 512;
  attr.mode = node.directory ? (S_IFDIR | 0555) : (S_IFREG | 0444);
  attr.nlink = node.directory ? 2 : 1;
  attr.blksize = kBlockSize;
  return attr;
}

}  // namespace

FuseReply FuseServer::init(FuseArguments arguments) {
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
  constexpr std::uint64_t kWanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
                                    FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS |
                                    FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                                    FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_HANDLE_KILLPRIV_V2 |
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
  out.max_write = kMaxTransfer;
  out.time_gran = 1;
  out.max_pages = kFuseMaxPages;
  return reply_with(out);
}

namespace {

// Entries of a directory, until there is no room for more.
class Listing {
 public:
  Listing(std::size_t room, bool plus) : room_(room), plus_(plus) {}

  // Whether one with such a name fits.
  [[nodiscard]] bool fits(std::string_view name) const {
    return reply_.payload.size() + size_of(name) <= room_;
  }
  // `entry`: for a READDIRPLUS; node 0: nothing is said of it.
  void add(const DirectoryEntry& what, const fuse_entry_out& entry) {
    const std::size_t start = reply_.payload.size();
    reply_.payload.resize(start + size_of(what.name));
    std::byte* at = &reply_.payload[start];
    if (plus_) {
      std::memcpy(at, &entry, sizeof entry);
      at += sizeof entry;
    }
    fuse_dirent fixed{};
    fixed.ino = what.inode;
    fixed.off = what.next;
    fixed.namelen = static_cast<std::uint32_t>(what.name.size());
    fixed.type = what.type;
    std::memcpy(at, &fixed, FUSE_NAME_OFFSET);
    std::memcpy(at + FUSE_NAME_OFFSET, what.name.data(), what.name.size());
  }
  [[nodiscard]] bool empty() const { return reply_.payload.empty(); }
  FuseReply take() { return std::move(reply_); }

 private:
  [[nodiscard]] std::size_t size_of(std::string_view name) const {
    return FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name.size()) + (plus_ ? sizeof(fuse_entry_out) : 0);
  }
  std::size_t room_;
  bool plus_;
  FuseReply reply_;
};

}  // namespace

Result<void> FuseServer::add_share(std::string_view path, Fd root, bool read_only,
                                   ShareCache cache) {
  const auto added = files_.add(std::move(root), read_only, cache);
  if (!added) {
    return std::unexpected(added.error());
  }
  if (auto hung = tree_.add_share(path, *added); !hung) {
    files_.remove(*added);
    return hung;
  }
  roots_.push_back(*added);
  return {};
}

void FuseServer::reset() {
  files_.reset();
}

FuseAnswer FuseServer::serve(std::span<const std::byte> request, std::size_t request_size,
                             std::size_t reply_room) {
  FuseArguments arguments(request);
  const auto header = arguments.take<fuse_in_header>();
  if (!header) {
    return FuseSilence{};  // not even a number to answer to
  }
  if (header->len != request_size) {
    return refuse(EINVAL);
  }
  switch (header->opcode) {
    case FUSE_INIT:
      reset();  // a mount of its own: nothing of an earlier one goes on
      return init(arguments);
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
      forget(request.subspan(sizeof *header), header->opcode, header->nodeid);
      return FuseSilence{};
    case FUSE_INTERRUPT:
      return FuseSilence{};  // no request waits for anything but the host's files
    case FUSE_DESTROY:
      reset();
      return FuseReply{};
    case FUSE_SYNCFS:
      return sync_all();
    default:
      return is_shared(header->nodeid) ? serve_share(*header, arguments, request_size, reply_room)
                                       : serve_tree(*header, arguments, reply_room);
  }
}

void FuseServer::forget(std::span<const std::byte> body, std::uint32_t opcode, std::uint64_t node) {
  FuseArguments arguments(body);
  if (opcode == FUSE_FORGET) {
    if (const auto in = arguments.take<fuse_forget_in>()) {
      files_.forget(node, in->nlookup);
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

FuseReply FuseServer::sync_all() {
  int error = 0;
  for (const std::uint64_t root : roots_) {
    if (const auto done = files_.sync_file_system(root); !done) {
      error = done.error();
    }
  }
  return error == 0 ? FuseReply{} : refuse(error);
}

// --- the synthetic tree ---

FuseAnswer FuseServer::lookup_in_tree(const SharedTree::Node& directory, FuseArguments arguments) {
  if (!directory.directory) {
    return refuse(ENOTDIR);
  }
  const std::size_t room = arguments.size();
  const auto name = arguments.take_text();
  if (!name) {
    return refuse(room > NAME_MAX ? ENAMETOOLONG : EINVAL);  // the name has no end
  }
  const std::uint64_t id = tree_.lookup(directory, *name);
  fuse_entry_out out{};
  if (id == 0) {
    return reply_with(out);  // not there now; a share may be added
  }
  const SharedTree::Node& found = *tree_.find(id);
  if (found.share != 0) {
    auto attr = files_.attributes(found.share);
    if (!attr) {
      return refuse(attr.error());
    }
    return reply_with(entry_out({found.share, *attr}));
  }
  out.nodeid = id;
  out.entry_valid = kForeverSeconds;
  out.attr_valid = kForeverSeconds;
  out.attr = attributes(id, found);
  return reply_with(out);
}

FuseReply FuseServer::list_tree(std::uint64_t id, const SharedTree::Node& directory,
                                FuseArguments arguments, std::size_t reply_room, bool plus) {
  const auto in = arguments.take<fuse_read_in>();
  if (!in) {
    return refuse(EINVAL);
  }
  if (!directory.directory) {
    return refuse(ENOTDIR);
  }
  Listing listing(std::min<std::size_t>({in->size, reply_room, kMaxListing}), plus);
  std::uint64_t position = 0;  // an entry's offset is its number, counted from 1
  const auto add = [&](std::string_view name, std::uint64_t entry, bool is_directory) {
    ++position;
    if (position <= in->offset) {
      return true;
    }
    if (!listing.fits(name)) {
      return false;
    }
    listing.add({name, entry, position, is_directory ? std::uint8_t{DT_DIR} : std::uint8_t{DT_REG}},
                {});
    return true;
  };
  bool more = add(".", id, true) && add("..", directory.parent, true);
  for (auto child = directory.children.begin(); more && child != directory.children.end();
       ++child) {
    const SharedTree::Node& node = *tree_.find(child->second);
    bool is_directory = node.directory;
    if (node.share != 0) {
      const auto status = files_.status(node.share);
      is_directory = status && S_ISDIR(status->stx_mode);
    }
    more = add(child->first, child->second, is_directory);
  }
  return listing.take();
}

FuseAnswer FuseServer::serve_tree(const fuse_in_header& header, FuseArguments arguments,
                                  std::size_t reply_room) {
  const SharedTree::Node* node = tree_.find(header.nodeid);
  if (node == nullptr || node->share != 0) {
    return refuse(ENOENT);
  }
  switch (header.opcode) {
    case FUSE_LOOKUP:
      return lookup_in_tree(*node, arguments);
    case FUSE_GETATTR: {
      fuse_attr_out out{};
      out.attr_valid = kForeverSeconds;
      out.attr = attributes(header.nodeid, *node);
      return reply_with(out);
    }
    case FUSE_OPEN:
    case FUSE_OPENDIR: {
      if (node->directory != (header.opcode == FUSE_OPENDIR)) {
        return refuse(node->directory ? EISDIR : ENOTDIR);
      }
      const auto in = arguments.take<fuse_open_in>();
      if (!in) {
        return refuse(EINVAL);
      }
      if ((in->flags & O_ACCMODE) != O_RDONLY) {
        return refuse(EROFS);
      }
      fuse_open_out out{};  // no handle: the node says all
      out.open_flags = FOPEN_KEEP_CACHE | kFopenNoFlush;
      return reply_with(out);
    }
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
      return list_tree(header.nodeid, *node, arguments, reply_room,
                       header.opcode == FUSE_READDIRPLUS);
    case FUSE_READ: {
      const auto in = arguments.take<fuse_read_in>();
      if (!in) {
        return refuse(EINVAL);
      }
      if (node->directory) {
        return refuse(EISDIR);
      }
      const std::uint64_t left = in->offset < node->size ? node->size - in->offset : 0;
      const std::uint64_t size =
          std::min<std::uint64_t>({in->size, reply_room, left, kMaxTransfer});
      if (size == 0) {
        return FuseReply{};
      }
      if (!node->file.valid()) {
        return reply_bytes(std::as_bytes(std::span(node->text)).subspan(in->offset, size));
      }
      return FuseRead{node->file.get(), in->offset, size, nullptr};
    }
    case FUSE_STATFS: {
      fuse_statfs_out out{};
      out.st.bsize = kBlockSize;
      out.st.frsize = kBlockSize;
      out.st.namelen = NAME_MAX;
      return reply_with(out);
    }
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
    case FUSE_FLUSH:
      return FuseReply{};
    case FUSE_READLINK:
      return refuse(EINVAL);
    case FUSE_GETXATTR:
    case FUSE_REMOVEXATTR:
      return refuse(ENODATA);
    case FUSE_LISTXATTR: {
      const auto in = arguments.take<fuse_getxattr_in>();
      if (!in) {
        return refuse(EINVAL);
      }
      return in->size == 0 ? reply_with(fuse_getxattr_out{}) : FuseReply{};
    }
    case FUSE_SETATTR:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_SYMLINK:
    case FUSE_WRITE:
    case FUSE_CREATE:
    case FUSE_TMPFILE:
    case FUSE_SETXATTR:
    case FUSE_FALLOCATE:
    case FUSE_COPY_FILE_RANGE:
      return refuse(EROFS);
    case kFuseStatx:
    case FUSE_LSEEK:
      // ENOSYS would mean that no file of the whole device can do it.
      return refuse(EINVAL);
    default:
      return refuse(ENOSYS);  // the guest need not ask again
  }
}

// --- shares: what answers are made of ---

std::uint64_t FuseServer::valid_seconds(std::uint64_t node) {
  const Share* const share = files_.share_of(node);
  switch (share == nullptr ? ShareCache::kNever : share->cache) {
    case ShareCache::kNever:
      return 0;
    case ShareCache::kAuto:
      return 1;
    case ShareCache::kAlways:
      break;
  }
  return kForeverSeconds;
}

std::uint32_t FuseServer::open_flags(std::uint64_t node) {
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

fuse_entry_out FuseServer::entry_out(const Entry& entry) {
  fuse_entry_out out{};
  out.nodeid = entry.node;
  out.entry_valid = valid_seconds(entry.node);
  out.attr_valid = out.entry_valid;
  out.attr = entry.attr;
  return out;
}

FuseReply FuseServer::reply_entry(const Outcome<Entry>& entry) {
  return entry ? reply_with(entry_out(*entry)) : refuse(entry.error());
}

FuseReply FuseServer::reply_handle(const Outcome<Handle>& handle, std::uint64_t node) {
  if (!handle) {
    return refuse(handle.error());
  }
  fuse_open_out out{};
  out.fh = handle->number;
  out.open_flags = open_flags(node);
  return reply_with(out);
}

FuseReply FuseServer::reply_created(const Outcome<SharedFiles::Created>& created) {
  if (!created) {
    return refuse(created.error());
  }
  FuseReply reply = reply_with(entry_out(created->entry));
  const FuseReply opened = reply_handle(created->handle, created->entry.node);
  reply.payload.insert(reply.payload.end(), opened.payload.begin(), opened.payload.end());
  return reply;
}

FuseReply FuseServer::reply_attr(std::uint64_t node, const Outcome<fuse_attr>& attr) {
  if (!attr) {
    return refuse(attr.error());
  }
  fuse_attr_out out{};
  out.attr_valid = valid_seconds(node);
  out.attr = *attr;
  return reply_with(out);
}

// --- shares: requests ---

FuseAnswer FuseServer::serve_share(const fuse_in_header& header, FuseArguments arguments,
                                   std::size_t request_size, std::size_t reply_room) {
  const std::uint64_t node = header.nodeid;
  switch (header.opcode) {
    case FUSE_GETATTR:
      return reply_attr(node, files_.attributes(node));
    case FUSE_SETATTR: {
      const auto in = arguments.take<fuse_setattr_in>();
      return in ? reply_attr(node, files_.set_attributes(node, *in)) : refuse(EINVAL);
    }
    case kFuseStatx: {
      const auto attr = files_.attributes(node);
      const auto status = files_.status(node);
      if (!attr || !status) {
        return refuse(attr ? status.error() : attr.error());
      }
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
      return list_share(node, arguments, reply_room, header.opcode == FUSE_READDIRPLUS);
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

FuseAnswer FuseServer::serve_entry(const fuse_in_header& header, FuseArguments arguments) {
  const std::uint64_t node = header.nodeid;
  const Caller caller{header.uid, header.gid};
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
      return in && name ? reply_entry(files_.make_node(node, *name, in->mode, in->rdev, caller))
                        : refuse(EINVAL);
    }
    case FUSE_MKDIR: {
      const auto in = arguments.take<fuse_mkdir_in>();
      const auto name = arguments.take_text();
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
      return is_shared(in->oldnodeid) ? reply_entry(files_.link(in->oldnodeid, node, *name))
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
      return is_shared(in.newdir)
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

FuseReply FuseServer::list_share(std::uint64_t id, FuseArguments arguments, std::size_t reply_room,
                                 bool plus) {
  const auto in = arguments.take<fuse_read_in>();
  if (!in) {
    return refuse(EINVAL);
  }
  const auto directory = files_.find(in->fh);
  if (directory == nullptr || !directory->directory || directory->node != id) {
    return refuse(EBADF);
  }
  Listing listing(std::min<std::size_t>({in->size, reply_room, kMaxListing}), plus);
  const auto done = files_.list(*directory, in->offset, in->size, [&](const DirectoryEntry& found) {
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

FuseAnswer FuseServer::serve_open_file(const fuse_in_header& header, FuseArguments arguments,
                                       std::size_t request_size, std::size_t reply_room) {
  // The handle: of a node of this number, for files or for directories.
  const auto opened = [&](std::uint64_t handle, bool directory) {
    auto file = files_.find(handle);
    if (file != nullptr && (file->node != header.nodeid || file->directory != directory)) {
      file.reset();
    }
    return file;
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
      const std::uint64_t size =
          std::min<std::uint64_t>({in->size, reply_room, kMaxTransfer, kMaxOffset - in->offset});
      if (size == 0) {
        return FuseReply{};
      }
      return FuseRead{file->file.get(), in->offset, size, file};
    }
    case FUSE_WRITE: {
      const auto in = arguments.take<fuse_write_in>();
      if (!in || in->size > kMaxTransfer || in->size != request_size - kFuseWriteHeader ||
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
      return file == nullptr ? refuse(EBADF) : reply_nothing(SharedFiles::flush(*file));
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
      return reply_nothing(files_.allocate(*file, in->offset, in->length, in->mode));
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
      const auto copied = files_.copy_range(*from, in->off_in, *to, in->off_out, in->len);
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

FuseAnswer FuseServer::serve_xattr(const fuse_in_header& header, FuseArguments arguments,
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
      return value ? reply_nothing(files_.set_xattr(node, *name, *value, in->flags))
                   : refuse(EINVAL);
    }
  }
}

}  // namespace msb::virtio
