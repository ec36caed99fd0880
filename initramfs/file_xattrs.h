/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes of files that are packed or unpacked. */
#ifndef MSB_INITRAMFS_FILE_XATTRS_H
#define MSB_INITRAMFS_FILE_XATTRS_H

#include "initramfs/tar_format.h"

/*
 * A file whose attributes are read or set: by `descriptor`, or, where that is -1 (what is neither a
 * regular file nor a directory must not be opened), by its name. No system call of Linux 6.12 takes
 * a directory and a name, and the agent has no /proc/self/fd: the process changes its working
 * directory to `directory`.
 */
struct file_node {
  int directory;
  const char* name;
  int descriptor;
};

/* Appends all attributes. Returns 0, or an errno: E2BIG when they do not fit. */
int file_xattrs_read(const struct file_node* node, struct tar_records* records);

/* Sets what `records`, which are well formed, have of them. Returns 0, or an errno. Names outside
 * the namespaces of Linux (xattr(7)) are other systems' and are left out. */
int file_xattrs_write(const struct file_node* node, struct tar_text records);

#endif
