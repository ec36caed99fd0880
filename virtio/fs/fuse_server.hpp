// SPDX-License-Identifier: Apache-2.0
// Answers FUSE requests (protocol 7, <linux/fuse.h>): about a synthetic tree, and about the shared
// host directories that hang in it. No queue is touched, so every request a guest can write is
// tested and fuzzed from bytes. Bytes of files are left to the caller to move.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "virtio/fs/fuse_message.hpp"
#include "virtio/fs/shared_files.hpp"
#include "virtio/fs/shared_tree.hpp"

struct fuse_in_header;
struct fuse_entry_out;

namespace msb::virtio {

// No answer goes back; the buffers are returned with length 0.
struct FuseSilence {};

// An answer: `error` is 0 or a negative errno; the payload follows the fuse_out_header when there
// is no error.
struct FuseReply {
  std::int32_t error = 0;
  std::vector<std::byte> payload;
};

// Bytes [offset, offset + size) of a file, cut at its end, to be fetched. `keep` keeps it open.
struct FuseRead {
  int file;
  std::uint64_t offset;
  std::uint64_t size;
  std::shared_ptr<const OpenFile> keep;  // null: of the tree, which lives as long as the server
};

// The `size` bytes behind the first kFuseWriteHeader of the request, to be put into a file. The
// answer is a fuse_write_out.
struct FuseWrite {
  std::shared_ptr<const OpenFile> file;
  std::uint64_t offset;
  std::uint32_t size;
  bool at_end;  // wherever that is by then (O_APPEND)
};

// A file's data, and with `whole` all about it, is to be brought to the disk. The answer is empty.
struct FuseSync {
  std::shared_ptr<const OpenFile> file;
  bool whole;
};

using FuseAnswer = std::variant<FuseSilence, FuseReply, FuseRead, FuseWrite, FuseSync>;

// Most pages that a READ may ask for, or a WRITE bring (fuse_init_out.max_pages); the header
// descriptors come on top.
inline constexpr std::uint16_t kFuseMaxPages = 256;

// Bytes of a WRITE in front of the data: fuse_in_header and fuse_write_in.
inline constexpr std::size_t kFuseWriteHeader = 80;

// Bytes of a request that the server has to see, at most: what a SETXATTR or BATCH_FORGET may have.
// Those beyond, which only a WRITE has, it leaves alone.
inline constexpr std::size_t kMaxFuseRequest = std::size_t{68} * 1024;

class FuseServer {
 public:
  FuseServer(SharedTree tree, OwnerRule rule, const ShareLimits& limits)
      : tree_(std::move(tree)), files_(rule, limits) {}

  // Adds a share at a path of the tree, as SharedTree::add_share(). `root`: O_PATH.
  Result<void> add_share(std::string_view path, Fd root, bool read_only, ShareCache cache);

  // `request`: fuse_in_header and what follows, cut at kMaxFuseRequest. `request_size`: its length
  // before the cut, which the header must agree with. `reply_room`: payload bytes that the guest
  // has room for.
  FuseAnswer serve(std::span<const std::byte> request, std::size_t request_size,
                   std::size_t reply_room);

  // The guest is gone: what it had open is closed, and what it knew forgotten.
  void reset();

  [[nodiscard]] const SharedFiles& files() const { return files_; }

 private:
  FuseReply init(FuseArguments arguments);
  FuseAnswer serve_tree(const fuse_in_header& header, FuseArguments arguments,
                        std::size_t reply_room);
  FuseAnswer serve_share(const fuse_in_header& header, FuseArguments arguments,
                         std::size_t request_size, std::size_t reply_room);
  // Those of serve_share() that work on a name, on an open file, or on extended attributes.
  FuseAnswer serve_entry(const fuse_in_header& header, FuseArguments arguments);
  FuseAnswer serve_open_file(const fuse_in_header& header, FuseArguments arguments,
                             std::size_t request_size, std::size_t reply_room);
  FuseAnswer serve_xattr(const fuse_in_header& header, FuseArguments arguments,
                         std::size_t reply_room);
  void forget(std::span<const std::byte> body, std::uint32_t opcode, std::uint64_t node);
  FuseReply sync_all();

  fuse_entry_out entry_out(const Entry& entry);
  FuseReply reply_entry(const Outcome<Entry>& entry);
  FuseReply reply_handle(const Outcome<Handle>& handle, std::uint64_t node);
  FuseReply reply_created(const Outcome<SharedFiles::Created>& created);
  FuseReply reply_attr(std::uint64_t node, const Outcome<fuse_attr>& attr);
  [[nodiscard]] std::uint32_t open_flags(std::uint64_t node);
  [[nodiscard]] std::uint64_t valid_seconds(std::uint64_t node);
  FuseAnswer lookup_in_tree(const SharedTree::Node& directory, FuseArguments arguments);
  FuseReply list_tree(std::uint64_t id, const SharedTree::Node& directory, FuseArguments arguments,
                      std::size_t reply_room, bool plus);
  FuseReply list_share(std::uint64_t id, FuseArguments arguments, std::size_t reply_room,
                       bool plus);

  SharedTree tree_;
  SharedFiles files_;
  std::vector<std::uint64_t> roots_;  // of the shares
  bool long_setxattr_ = false;        // FUSE_SETXATTR_EXT
};

}  // namespace msb::virtio
