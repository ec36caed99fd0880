// SPDX-License-Identifier: Apache-2.0
// Answers FUSE requests about shared host directories. All calls on one thread, which they may
// block for as long as the host's file systems do.
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "virtio/fs/fuse_answer.hpp"
#include "virtio/fs/shared_files.hpp"

namespace msb::virtio {

class ShareServer {
 public:
  ShareServer(OwnerRule rule, const ShareLimits& limits) : files_(rule, limits) {}

  [[nodiscard]] SharedFiles& files() { return files_; }
  [[nodiscard]] const SharedFiles& files() const { return files_; }

  // A request to a node of a share, or to the whole device.
  FuseAnswer serve(const fuse_in_header& header, FuseArguments arguments, std::size_t request_size,
                   std::size_t reply_room);
  // The answer to a LOOKUP that found the root of a share.
  FuseReply lookup_root(std::uint64_t node);

 private:
  FuseReply init(FuseArguments arguments);
  FuseAnswer serve_node(const fuse_in_header& header, FuseArguments arguments,
                        std::size_t request_size, std::size_t reply_room);
  // Those of serve_node() that work on a name, on an open file, or on extended attributes.
  FuseAnswer serve_entry(const fuse_in_header& header, FuseArguments arguments);
  FuseAnswer serve_open_file(const fuse_in_header& header, FuseArguments arguments,
                             std::size_t request_size, std::size_t reply_room);
  FuseAnswer serve_xattr(const fuse_in_header& header, FuseArguments arguments,
                         std::size_t reply_room);
  FuseReply lock(const fuse_in_header& header, FuseArguments arguments);
  [[nodiscard]] std::shared_ptr<OpenFile> open_file(const fuse_in_header& header,
                                                    std::uint64_t handle, bool directory) const;
  void forget(const fuse_in_header& header, FuseArguments arguments);
  FuseReply list(std::uint64_t id, FuseArguments arguments, std::size_t reply_room, bool plus);

  fuse_entry_out entry_out(const Entry& entry);
  FuseReply reply_entry(const Outcome<Entry>& entry);
  FuseReply reply_handle(const Outcome<Handle>& handle, std::uint64_t node);
  FuseReply reply_created(const Outcome<SharedFiles::Created>& created);
  FuseReply reply_attr(std::uint64_t node, const Outcome<fuse_attr>& attr);
  [[nodiscard]] std::uint32_t open_flags(std::uint64_t node);
  [[nodiscard]] std::uint64_t valid_seconds(std::uint64_t node);

  SharedFiles files_;
  bool long_setxattr_ = false;  // FUSE_SETXATTR_EXT
};

}  // namespace msb::virtio
