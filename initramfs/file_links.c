/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/file_links.h"

#include <string.h>
#include <sys/mman.h>

/* Twice as many as can be used, so that looking for a free one ends soon. */
#define SLOTS (2u * FILE_LINKS_MAX)

struct file_link {
  uint64_t device;
  uint64_t inode;
  uint32_t name; /* its offset, and 1; 0: the slot is free */
};

static void* map(size_t size) {
  void* memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

void file_links_free(struct file_links* links) {
  if (links->slots != NULL) munmap(links->slots, SLOTS * sizeof *links->slots);
  if (links->names != NULL) munmap(links->names, FILE_LINKS_NAMES);
  memset(links, 0, sizeof *links);
}

static uint32_t first_slot(uint64_t device, uint64_t inode) {
  /* The odd constant of Fibonacci hashing: inode numbers are mostly consecutive. */
  uint64_t hash = (inode ^ (device << 32)) * 0x9e3779b97f4a7c15u;
  return (uint32_t)(hash >> 40) % SLOTS;
}

const char* file_links_find(struct file_links* links, const struct stat* status, const char* name) {
  if (links->slots == NULL) {
    links->slots = map(SLOTS * sizeof *links->slots);
    links->names = map(FILE_LINKS_NAMES);
    /* Without memory nothing is remembered: the files are packed one by one. */
    if (links->slots == NULL || links->names == NULL) {
      file_links_free(links);
      return NULL;
    }
  }
  uint32_t at = first_slot(status->st_dev, status->st_ino);
  struct file_link* slot = &links->slots[at];
  while (slot->name != 0) {
    if (slot->device == status->st_dev && slot->inode == status->st_ino) {
      return links->names + slot->name - 1;
    }
    at = (at + 1) % SLOTS;
    slot = &links->slots[at];
  }
  if (name == NULL || links->count == FILE_LINKS_MAX) return NULL;
  size_t size = strlen(name) + 1;
  if (size > FILE_LINKS_NAMES - links->names_used) return NULL;
  memcpy(links->names + links->names_used, name, size);
  *slot = (struct file_link){status->st_dev, status->st_ino, (uint32_t)links->names_used + 1};
  links->names_used += size;
  links->count++;
  return NULL;
}
