/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/ext4_superblock.h"

#include <stddef.h>
#include <string.h>

/* Little-endian, as x86-64 is. */
#define BLOCKS_LOW 0x4
#define LOG_BLOCK_SIZE 0x18 /* of kibibytes */
#define MAGIC 0x38
#define COMPATIBLE_FEATURES 0x5c
#define INCOMPATIBLE_FEATURES 0x60
#define BLOCKS_HIGH 0x150
#define EXT4_MAGIC 0xef53u
#define HAS_JOURNAL 0x4u
#define HAS_64_BITS 0x80u
#define LOG_BLOCK_SIZE_MAX 6u /* 64 KiB */

static uint32_t field(const uint8_t* superblock, size_t offset) {
  uint32_t value;
  memcpy(&value, superblock + offset, sizeof value);
  return value;
}

bool ext4_summarize(const uint8_t superblock[EXT4_SUPERBLOCK_SIZE], struct ext4_summary* summary) {
  uint32_t log_size = field(superblock, LOG_BLOCK_SIZE);
  if ((field(superblock, MAGIC) & 0xffffu) != EXT4_MAGIC || log_size > LOG_BLOCK_SIZE_MAX) {
    return false;
  }
  summary->block_size = 1024u << log_size;
  summary->blocks = field(superblock, BLOCKS_LOW);
  if ((field(superblock, INCOMPATIBLE_FEATURES) & HAS_64_BITS) != 0) {
    summary->blocks |= (uint64_t)field(superblock, BLOCKS_HIGH) << 32;
  }
  summary->has_journal = (field(superblock, COMPATIBLE_FEATURES) & HAS_JOURNAL) != 0;
  return true;
}
