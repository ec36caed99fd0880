// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/ext4_superblock.h"
}

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

using Superblock = std::array<std::uint8_t, EXT4_SUPERBLOCK_SIZE>;

void put(Superblock& superblock, std::size_t offset, std::uint32_t value) {
  std::memcpy(superblock.data() + offset, &value, sizeof value);
}

// As mke2fs makes it: 4 KiB blocks, with a journal and more than 2^32 blocks.
Superblock large() {
  Superblock superblock{};
  put(superblock, 0x4, 7);
  put(superblock, 0x18, 2);
  put(superblock, 0x38, 0x0001ef53);
  put(superblock, 0x5c, 0x4);
  put(superblock, 0x60, 0x80);
  put(superblock, 0x150, 1);
  return superblock;
}

}  // namespace

TEST_CASE("a superblock tells block size, blocks and journal") {
  ext4_summary summary{};
  REQUIRE(ext4_summarize(large().data(), &summary));
  CHECK(summary.block_size == 4096);
  CHECK(summary.blocks == 0x100000007);
  CHECK(summary.has_journal);
}

TEST_CASE("without the feature of 64 bits the upper half of the number of blocks means nothing") {
  Superblock superblock = large();
  put(superblock, 0x60, 0);
  put(superblock, 0x5c, 0);
  ext4_summary summary{};
  REQUIRE(ext4_summarize(superblock.data(), &summary));
  CHECK(summary.blocks == 7);
  CHECK_FALSE(summary.has_journal);
}

TEST_CASE("what is no superblock, or has impossible blocks, is refused") {
  ext4_summary summary{};
  CHECK_FALSE(ext4_summarize(Superblock{}.data(), &summary));
  Superblock superblock = large();
  put(superblock, 0x18, 7);
  CHECK_FALSE(ext4_summarize(superblock.data(), &summary));
  put(superblock, 0x18, 0xffffffff);
  CHECK_FALSE(ext4_summarize(superblock.data(), &summary));
}
