// SPDX-License-Identifier: Apache-2.0
// Writes one layer as an EROFS image: first the data of its files as it streams by, then, with the
// finished tree, the directories and inodes, at last the superblock.
//
//   block 0        superblock
//   1 ..           file data, in the order of the tar, each file at a block of its own
//   then           blocks of directories, and targets of symbolic links, that do not fit behind
//   their inode meta_blkaddr   inodes, each with its extended attributes and its inline tail; the
//   root is the first
//
// Equal trees with equal data give equal bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "oci/arena.hpp"
#include "oci/block_stream.hpp"
#include "oci/digest.hpp"
#include "oci/layer_tree.hpp"

namespace msb::oci {

// To be raised with every change of the images that the writer makes from a layer.
inline constexpr int kErofsWriterVersion = 3;

// What came of it.
struct ErofsImage {
  std::uint64_t length = 0;  // bytes
  std::uint32_t names = 0;   // "." and ".." not counted
  std::uint32_t implied_directories = 0;
};

class ErofsWriter {
 public:
  // `fd` is an empty regular file, open for writing and kept by the caller.
  explicit ErofsWriter(int fd);

  // The data of one regular file, `size` bytes long: pieces at ascending offsets within the size,
  // gaps read as zeros. `xattrs_size` is the length of its encoded attributes, which must not grow
  // later.
  Result<void> begin_file(std::uint64_t size, std::size_t xattrs_size);
  Result<void> write_file(std::uint64_t offset, std::span<const std::byte> piece);
  Result<RegularContent> end_file();

  // The bytes of a file's inline tail.
  [[nodiscard]] std::string_view tail(Arena::Ref ref) const { return tails_.at(ref); }

  // Writes everything else and sets the file's length. `identity` becomes the file system's UUID.
  // Fails when the file cannot take it or it would pass EROFS' limits.
  Result<ErofsImage> finish(const LayerTree& tree, const Digest& identity);

 private:
  struct OpenFile {
    std::uint64_t size = 0;
    std::uint64_t in_blocks = 0;  // bytes [0, in_blocks) go to data blocks, the rest to the tail
    std::uint64_t start = 0;      // position of the first data block
    std::vector<std::byte> tail;
  };

  int fd_;
  BlockStream stream_;
  OpenFile file_;
  Arena tails_;
};

}  // namespace msb::oci
