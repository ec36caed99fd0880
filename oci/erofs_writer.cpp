// SPDX-License-Identifier: Apache-2.0
#include "oci/erofs_writer.hpp"

#include <isa-l/crc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <limits>

#include "oci/erofs_format.hpp"
#include "oci/erofs_metadata.hpp"

namespace msb::oci {
namespace {

// A short tail behind its inode saves a block on disk and a read in the guest. Longer ones would
// fill metadata blocks badly, and all of them wait in memory, so when the capacity is used up tails
// go to blocks.
constexpr std::uint64_t kMaxInlineTail = 2048;                // bytes
constexpr std::size_t kTailCapacity = std::size_t{24} << 20;  // bytes

Result<void> write_superblock(int fd, const MetadataSummary& metadata, const Digest& identity) {
  std::array<std::byte, erofs::kBlockSize - erofs::kSuperblockOffset> block{};
  erofs::Superblock super{};
  super.magic = erofs::kMagic;
  super.feature_compat = erofs::kFeatureChecksum | erofs::kFeatureMtime;
  super.blkszbits = erofs::kBlockBits;
  super.root_nid = metadata.root_nid;
  super.inos = metadata.inodes;
  super.blocks = metadata.end_block;
  super.meta_blkaddr = metadata.meta_block;
  // RFC 9562, version 8 (custom) and variant 10: overlayfs wants the UUIDs of its layers to differ.
  std::memcpy(super.uuid, identity.bytes().data(), sizeof super.uuid);
  super.uuid[6] = static_cast<std::uint8_t>((super.uuid[6] & 0x0FU) | 0x80U);
  super.uuid[8] = static_cast<std::uint8_t>((super.uuid[8] & 0x3FU) | 0x80U);
  std::memcpy(block.data(), &super, sizeof super);
  super.checksum = crc32_iscsi(reinterpret_cast<unsigned char*>(block.data()),
                               static_cast<int>(block.size()), ~0U);
  std::memcpy(block.data(), &super, sizeof super);
  return write_at(fd, block, erofs::kSuperblockOffset);
}

}  // namespace

ErofsWriter::ErofsWriter(int fd) : fd_(fd), stream_(fd), tails_(kTailCapacity) {}

Result<void> ErofsWriter::begin_file(std::uint64_t size, std::size_t xattrs_size) {
  if (stream_.position() < erofs::kBlockSize) {
    if (auto skipped = stream_.skip(erofs::kBlockSize); !skipped) {
      return skipped;
    }
  }
  const std::uint64_t tail = size % erofs::kBlockSize;
  const bool is_inline =
      tail > 0 && tail <= kMaxInlineTail && fits_inline(xattrs_size, tail) && tails_.has_room(tail);
  file_.size = size;
  file_.in_blocks = is_inline ? size - tail : size;
  file_.start = stream_.position();
  file_.tail.assign(is_inline ? tail : 0, std::byte{0});
  constexpr std::uint64_t kMaxPosition =
      std::uint64_t{std::numeric_limits<std::uint32_t>::max()} * erofs::kBlockSize;
  if (size > kMaxPosition - file_.start) {
    return fail("the layer's files are too large for one file system");
  }
  return {};
}

Result<void> ErofsWriter::write_file(std::uint64_t offset, std::span<const std::byte> piece) {
  if (offset > file_.size || piece.size() > file_.size - offset) {
    return fail("a file has more content than its size says");
  }
  if (offset < file_.in_blocks) {
    const std::uint64_t position = file_.start + offset;
    if (position < stream_.position()) {
      return fail("a file's content is not in order");
    }
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), file_.in_blocks - offset));
    if (auto skipped = stream_.skip(position - stream_.position()); !skipped) {
      return skipped;
    }
    if (auto written = stream_.write(piece.first(count)); !written) {
      return written;
    }
    piece = piece.subspan(count);
    offset += count;
  }
  if (!piece.empty()) {
    std::ranges::copy(piece,
                      file_.tail.begin() + static_cast<std::ptrdiff_t>(offset - file_.in_blocks));
  }
  return {};
}

Result<RegularContent> ErofsWriter::end_file() {
  if (auto skipped = stream_.skip(file_.start + file_.in_blocks - stream_.position()); !skipped) {
    return std::unexpected(skipped.error());
  }
  if (auto aligned = stream_.align(erofs::kBlockSize); !aligned) {
    return std::unexpected(aligned.error());
  }
  RegularContent content;
  content.size = file_.size;
  if (file_.in_blocks > 0) {
    content.first_block = static_cast<std::uint32_t>(file_.start / erofs::kBlockSize);
  }
  if (!file_.tail.empty()) {
    // There is room: begin_file() asked.
    content.tail =
        *tails_.store({reinterpret_cast<const char*>(file_.tail.data()), file_.tail.size()});
  }
  return content;
}

Result<ErofsImage> ErofsWriter::finish(const LayerTree& tree, const Digest& identity) {
  if (stream_.position() < erofs::kBlockSize) {
    if (auto skipped = stream_.skip(erofs::kBlockSize); !skipped) {
      return std::unexpected(skipped.error());
    }
  }
  const auto metadata = write_metadata(tree, tails_, stream_);
  if (!metadata) {
    return std::unexpected(metadata.error());
  }
  if (auto flushed = stream_.flush(); !flushed) {
    return std::unexpected(flushed.error());
  }
  const std::uint64_t length = std::uint64_t{metadata->end_block} * erofs::kBlockSize;
  if (::ftruncate(fd_, static_cast<off_t>(length)) != 0) {
    return fail_errno(errno, "cannot set the length of the layer's image");
  }
  if (auto written = write_superblock(fd_, *metadata, identity); !written) {
    return std::unexpected(written.error());
  }
  return ErofsImage{length, metadata->names, metadata->implied_directories};
}

}  // namespace msb::oci
