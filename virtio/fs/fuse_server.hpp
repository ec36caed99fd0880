// SPDX-License-Identifier: Apache-2.0
// Answers FUSE requests (protocol 7, <linux/fuse.h>) about a SharedTree. Pure: no queue, no
// descriptor is touched, so every request a guest can write is tested and fuzzed from bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "virtio/fs/shared_tree.hpp"

namespace msb::virtio {

// No answer goes back; the buffers are returned with length 0.
struct FuseSilence {};

// An answer: `error` is 0 or a negative errno; the payload follows the fuse_out_header when there
// is no error.
struct FuseReply {
  std::int32_t error = 0;
  std::vector<std::byte> payload;
};

// Bytes [offset, offset + size) of a file, cut at its end; the caller fetches them.
struct FuseRead {
  const SharedTree::Node* file;
  std::uint64_t offset;
  std::uint64_t size;
};

using FuseAnswer = std::variant<FuseSilence, FuseReply, FuseRead>;

// Bytes of a request beyond the header that any supported operation needs.
inline constexpr std::size_t kMaxFuseRequest = 4096;

// Most pages that a READ may ask for (fuse_init_out.max_pages); the header descriptors come on top.
inline constexpr std::uint16_t kFuseMaxPages = 256;

// `request`: fuse_in_header and what follows, cut at kMaxFuseRequest. `request_size`: its length
// before the cut, which the header must agree with. `reply_room`: payload bytes that the guest has
// room for.
FuseAnswer serve_fuse(const SharedTree& tree, std::span<const std::byte> request,
                      std::size_t request_size, std::size_t reply_room);

}  // namespace msb::virtio
