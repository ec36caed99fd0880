// SPDX-License-Identifier: Apache-2.0
// The second half of an EROFS image: directories and inodes of a finished tree.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.hpp"
#include "oci/arena.hpp"
#include "oci/block_stream.hpp"
#include "oci/layer_tree.hpp"

namespace msb::oci {

// What the superblock says about the rest.
struct MetadataSummary {
  std::uint32_t meta_block = 0;
  std::uint32_t end_block = 0;  // length of the image in blocks
  std::uint16_t root_nid = 0;
  std::uint64_t inodes = 0;
  std::uint32_t names = 0;  // "." and ".." not counted
  std::uint32_t implied_directories = 0;
};

// Whether an inode with encoded attributes of `xattrs_size` bytes and an inline tail of `tail_size`
// fits into one block.
bool fits_inline(std::size_t xattrs_size, std::uint64_t tail_size);

// Writes what is reachable from the root of `tree` at the stream's position, which must be a
// multiple of the block size and becomes one again. `tails` holds the tails of regular files. Fails
// on write errors and beyond EROFS' limits.
Result<MetadataSummary> write_metadata(const LayerTree& tree, const Arena& tails,
                                       BlockStream& stream);

}  // namespace msb::oci
