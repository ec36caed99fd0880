/* SPDX-License-Identifier: Apache-2.0 */
/* One entry of a tar stream becomes a file. What is in its way is replaced, except directories. */
#ifndef MSB_INITRAMFS_UNPACK_ENTRY_H
#define MSB_INITRAMFS_UNPACK_ENTRY_H

#include <stdbool.h>

#include "initramfs/failure.h"
#include "initramfs/file_xattrs.h"
#include "initramfs/tar_format.h"
#include "initramfs/unpack_directory.h"

struct unpack_entry {
  struct unpack_directory* directory;
  const struct tar_header* header;
  struct tar_text records; /* its extended header */
  struct failure* failure;
  struct file_node node; /* set by unpack_entry_place() */
  int link_directory;    /* of a hard link's target */
};

/* Checks the header, and goes to the entry's directory. */
bool unpack_entry_place(struct unpack_entry* entry);

/* Makes a regular file, empty and nobody else's yet. Returns its descriptor, or -1. */
int unpack_entry_create(struct unpack_entry* entry);

/* Sets owner, mode, attributes and time of what was made. */
bool unpack_entry_finish(const struct unpack_entry* entry);

bool unpack_entry_directory(struct unpack_entry* entry);
bool unpack_entry_hard_link(struct unpack_entry* entry);
bool unpack_entry_symlink(struct unpack_entry* entry);
/* Also a pipe. */
bool unpack_entry_device(struct unpack_entry* entry);

/* Fails with `code` on the entry. */
bool unpack_entry_fail(const struct unpack_entry* entry, int code, const char* verb);

#endif
