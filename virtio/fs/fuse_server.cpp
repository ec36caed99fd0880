// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/fuse_server.hpp"

#include <linux/fuse.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

namespace msb::virtio {

namespace {

constexpr std::uint32_t kMinorVersion = 38;
// Nothing in the tree ever changes, so the guest may remember it for as long as it runs.
constexpr std::uint64_t kForeverSeconds = 1U << 30;
constexpr std::uint32_t kBlockSize = 4096;
// What INIT allows; a guest that asks for more gets this much.
constexpr std::uint64_t kMaxRead = std::uint64_t{kFuseMaxPages} * kBlockSize;

// The fixed-size argument of a request, or nothing when the request is too short to hold it.
template <typename T>
std::optional<T> argument(std::span<const std::byte> body) {
  if (body.size() < sizeof(T)) {
    return std::nullopt;
  }
  T value;
  std::memcpy(&value, body.data(), sizeof value);
  return value;
}

template <typename T>
void append(std::vector<std::byte>& to, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

template <typename T>
FuseReply reply_with(const T& value) {
  FuseReply reply;
  append(reply.payload, value);
  return reply;
}

FuseReply refuse(int error) {
  return {-error, {}};
}

fuse_attr attributes(std::uint64_t id, const SharedTree::Node& node) {
  fuse_attr attr{};
  attr.ino = id;
  attr.size = node.size;
  attr.blocks = (node.size + 511) / 512;
  attr.mode = node.directory ? (S_IFDIR | 0555) : (S_IFREG | 0444);
  attr.nlink = node.directory ? 2 : 1;
  attr.blksize = kBlockSize;
  return attr;
}

FuseReply init(std::span<const std::byte> body) {
  // The reserved end of fuse_init_in came with later minor versions; the first 16 bytes are always
  // there.
  struct Init {
    std::uint32_t major, minor, max_readahead, flags;
  };
  const auto in = argument<Init>(body);
  if (!in) {
    return refuse(EINVAL);
  }
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = std::min(in->minor, kMinorVersion);
  if (in->major != FUSE_KERNEL_VERSION) {
    out.minor = kMinorVersion;
    return reply_with(out);  // another major version: the guest comes again with ours, or gives up
  }
  out.max_readahead = in->max_readahead;
  out.flags = in->flags & (FUSE_ASYNC_READ | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
                           FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT);
  out.max_background = 64;
  out.congestion_threshold = 48;
  out.max_write = kBlockSize;
  out.time_gran = 1;
  out.max_pages = kFuseMaxPages;
  return reply_with(out);
}

FuseAnswer lookup(const SharedTree& tree, const SharedTree::Node& node,
                  std::span<const std::byte> body) {
  if (!node.directory) {
    return refuse(ENOTDIR);
  }
  const auto* text = reinterpret_cast<const char*>(body.data());
  const std::size_t length = ::strnlen(text, body.size());
  if (length == body.size()) {
    return refuse(length > 255 ? ENAMETOOLONG : EINVAL);  // the name has no end
  }
  const std::uint64_t id = tree.lookup(node, std::string_view(text, length));
  fuse_entry_out out{};  // node id 0: there is no such name, and there never will be
  out.entry_valid = kForeverSeconds;
  if (id != 0) {
    out.nodeid = id;
    out.attr_valid = kForeverSeconds;
    out.attr = attributes(id, *tree.find(id));
  }
  return reply_with(out);
}

FuseAnswer read_directory(const SharedTree& tree, std::uint64_t id, const SharedTree::Node& node,
                          std::span<const std::byte> body, std::size_t reply_room) {
  const auto in = argument<fuse_read_in>(body);
  if (!in) {
    return refuse(EINVAL);
  }
  if (!node.directory) {
    return refuse(ENOTDIR);
  }
  const std::size_t room = std::min<std::size_t>({in->size, reply_room, std::size_t{64} * 1024});
  FuseReply reply;
  std::uint64_t position = 0;  // an entry's offset is its number, counted from 1
  const auto add = [&](std::string_view name, std::uint64_t entry_id, bool directory) {
    ++position;
    if (position <= in->offset) {
      return true;
    }
    const std::size_t size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name.size());
    if (reply.payload.size() + size > room) {
      return false;
    }
    fuse_dirent entry{};
    entry.ino = entry_id;
    entry.off = position;
    entry.namelen = static_cast<std::uint32_t>(name.size());
    entry.type = directory ? S_IFDIR >> 12 : S_IFREG >> 12;
    const std::size_t start = reply.payload.size();
    reply.payload.resize(start + size);
    std::memcpy(&reply.payload[start], &entry, FUSE_NAME_OFFSET);
    std::memcpy(&reply.payload[start + FUSE_NAME_OFFSET], name.data(), name.size());
    return true;
  };
  bool more = add(".", id, true) && add("..", node.parent, true);
  for (auto child = node.children.begin(); more && child != node.children.end(); ++child) {
    more = add(child->first, child->second, tree.find(child->second)->directory);
  }
  return reply;
}

FuseAnswer read_file(const SharedTree::Node& node, std::span<const std::byte> body,
                     std::size_t reply_room) {
  const auto in = argument<fuse_read_in>(body);
  if (!in) {
    return refuse(EINVAL);
  }
  if (node.directory) {
    return refuse(EISDIR);
  }
  const std::uint64_t left = in->offset < node.size ? node.size - in->offset : 0;
  const std::uint64_t size = std::min<std::uint64_t>({in->size, reply_room, left, kMaxRead});
  if (size == 0) {
    return FuseReply{};
  }
  return FuseRead{&node, in->offset, size};
}

}  // namespace

FuseAnswer serve_fuse(const SharedTree& tree, std::span<const std::byte> request,
                      std::size_t request_size, std::size_t reply_room) {
  const auto header = argument<fuse_in_header>(request);
  if (!header) {
    return FuseSilence{};  // not even a number to answer to
  }
  if (header->len != request_size) {
    return refuse(EINVAL);
  }
  const std::span<const std::byte> body = request.subspan(sizeof *header);
  switch (header->opcode) {
    case FUSE_INIT:
      return init(body);
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
      return FuseSilence{};  // nodes live as long as the tree, and no request takes long
    case FUSE_DESTROY:
      return FuseReply{};
    default:
      break;
  }
  const SharedTree::Node* node = tree.find(header->nodeid);
  if (node == nullptr) {
    return refuse(ENOENT);
  }
  switch (header->opcode) {
    case FUSE_LOOKUP:
      return lookup(tree, *node, body);
    case FUSE_GETATTR: {
      fuse_attr_out out{};
      out.attr_valid = kForeverSeconds;
      out.attr = attributes(header->nodeid, *node);
      return reply_with(out);
    }
    case FUSE_READDIR:
      return read_directory(tree, header->nodeid, *node, body, reply_room);
    case FUSE_READ:
      return read_file(*node, body, reply_room);
    case FUSE_STATFS: {
      fuse_statfs_out out{};
      out.st.bsize = kBlockSize;
      out.st.frsize = kBlockSize;
      out.st.namelen = 255;
      return reply_with(out);
    }
    case FUSE_READLINK:
      return refuse(EINVAL);
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
    case FUSE_REMOVEXATTR:
    case FUSE_FALLOCATE:
      return refuse(EROFS);
    default:
      // ENOSYS also tells the guest that OPEN, OPENDIR, FLUSH, ACCESS and the like need not be
      // asked again.
      return refuse(ENOSYS);
  }
}

}  // namespace msb::virtio
