/* SPDX-License-Identifier: Apache-2.0 */
/* What the superblock of an ext4 file system says (Documentation/filesystems/ext4/super.rst). No
 * I/O. */
#ifndef MSB_INITRAMFS_EXT4_SUPERBLOCK_H
#define MSB_INITRAMFS_EXT4_SUPERBLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Where it is on the device, in bytes. */
#define EXT4_SUPERBLOCK_OFFSET 1024
#define EXT4_SUPERBLOCK_SIZE 1024

struct ext4_summary {
  uint32_t block_size; /* bytes */
  uint64_t blocks;
  bool has_journal;
};

/* False when it is none. */
bool ext4_summarize(const uint8_t superblock[EXT4_SUPERBLOCK_SIZE], struct ext4_summary* summary);

#endif
