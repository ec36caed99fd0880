// SPDX-License-Identifier: Apache-2.0
// Answers FUSE requests about a SharedTree. Pure: no descriptor is touched.
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>

#include "virtio/fs/fuse_answer.hpp"
#include "virtio/fs/shared_tree.hpp"

namespace msb::virtio {

struct TreeAnswer {
  FuseAnswer answer;
  // Instead, when the name that was looked up is the root of a share: its number. The share knows
  // the answer.
  std::uint64_t share_root = 0;
};

// Nodes of the tree have numbers below 2^32, those of shares above.
constexpr bool is_shared_node(std::uint64_t node) {
  return node >> 32 != 0;
}

TreeAnswer serve_tree(const SharedTree& tree, const fuse_in_header& header, FuseArguments arguments,
                      std::size_t reply_room);

}  // namespace msb::virtio
