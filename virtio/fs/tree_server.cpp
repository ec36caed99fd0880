// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/tree_server.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

#include "virtio/fs/fuse_protocol.hpp"

namespace msb::virtio {

namespace {

constexpr std::uint32_t kBlockSize = 4096;

TreeAnswer answer(FuseReply reply) {
  return {std::move(reply)};
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
  // When it was looked at, so that the guest's init learns what time it is (protocol/msb_boot.h).
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  attr.atime = attr.mtime = attr.ctime = static_cast<std::uint64_t>(now.tv_sec);
  attr.atimensec = attr.mtimensec = attr.ctimensec = static_cast<std::uint32_t>(now.tv_nsec);
  return attr;
}

TreeAnswer lookup(const SharedTree& tree, const SharedTree::Node& directory,
                  FuseArguments arguments) {
  if (!directory.directory) {
    return answer(refuse(ENOTDIR));
  }
  const std::size_t room = arguments.size();
  const auto name = arguments.take_text();
  if (!name) {
    return answer(refuse(room > NAME_MAX ? ENAMETOOLONG : EINVAL));  // the name has no end
  }
  const std::uint64_t id = tree.lookup(directory, *name);
  fuse_entry_out out{};
  if (id == 0) {
    return answer(reply_with(out));  // not there now; a share may be added
  }
  const SharedTree::Node& found = *tree.find(id);
  if (found.share != 0) {
    return {{}, found.share};
  }
  out.nodeid = id;
  out.entry_valid = kFuseForeverSeconds;
  out.attr_valid = kFuseForeverSeconds;
  out.attr = attributes(id, found);
  return answer(reply_with(out));
}

FuseReply list(const SharedTree& tree, std::uint64_t id, const SharedTree::Node& directory,
               FuseArguments arguments, std::size_t reply_room, bool plus) {
  const auto in = arguments.take<fuse_read_in>();
  if (!in) {
    return refuse(EINVAL);
  }
  if (!directory.directory) {
    return refuse(ENOTDIR);
  }
  FuseListing listing(std::min<std::size_t>(in->size, reply_room), plus);
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
    const SharedTree::Node& node = *tree.find(child->second);
    more = add(child->first, child->second, node.directory || node.share_directory);
  }
  return listing.take();
}

FuseAnswer serve_node(const SharedTree& tree, const SharedTree::Node& node,
                      const fuse_in_header& header, FuseArguments arguments,
                      std::size_t reply_room) {
  switch (header.opcode) {
    case FUSE_GETATTR: {
      fuse_attr_out out{};
      out.attr_valid = kFuseForeverSeconds;
      out.attr = attributes(header.nodeid, node);
      return reply_with(out);
    }
    case FUSE_OPEN:
    case FUSE_OPENDIR: {
      if (node.directory != (header.opcode == FUSE_OPENDIR)) {
        return refuse(node.directory ? EISDIR : ENOTDIR);
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
      return list(tree, header.nodeid, node, arguments, reply_room,
                  header.opcode == FUSE_READDIRPLUS);
    case FUSE_READ: {
      const auto in = arguments.take<fuse_read_in>();
      if (!in) {
        return refuse(EINVAL);
      }
      if (node.directory) {
        return refuse(EISDIR);
      }
      const std::uint64_t left = in->offset < node.size ? node.size - in->offset : 0;
      const std::uint64_t size =
          std::min<std::uint64_t>({in->size, reply_room, left, kFuseMaxTransfer});
      if (size == 0) {
        return FuseReply{};
      }
      if (!node.file.valid()) {
        return reply_bytes(std::as_bytes(std::span(node.text)).subspan(in->offset, size));
      }
      return FuseRead{node.file.get(), in->offset, size, nullptr};
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
    case FUSE_GETLK:
    case FUSE_SETLK:
    case FUSE_SETLKW:
      return refuse(EOPNOTSUPP);  // nobody but the guest could lock these
    default:
      return refuse(ENOSYS);  // the guest need not ask again
  }
}

}  // namespace

TreeAnswer serve_tree(const SharedTree& tree, const fuse_in_header& header, FuseArguments arguments,
                      std::size_t reply_room) {
  const SharedTree::Node* node = tree.find(header.nodeid);
  if (node == nullptr || node->share != 0) {
    return answer(refuse(ENOENT));
  }
  if (header.opcode == FUSE_LOOKUP) {
    return lookup(tree, *node, arguments);
  }
  return {serve_node(tree, *node, header, arguments, reply_room)};
}

}  // namespace msb::virtio
