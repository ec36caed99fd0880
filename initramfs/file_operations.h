/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What file requests do (docs/exec-protocol.md), one function each. They send what comes before
 * DONE themselves, set its `value` where it is not 0, and return false with `failure` for REFUSED.
 * When the stream breaks they clean up and return.
 */
#ifndef MSB_INITRAMFS_FILE_OPERATIONS_H
#define MSB_INITRAMFS_FILE_OPERATIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "initramfs/failure.h"
#include "initramfs/file_request.h"
#include "initramfs/file_stream.h"

struct file_operation {
  struct file_stream* stream;
  const struct file_request* request;
  uint64_t value;
  struct failure* failure;
};

/* file_inspect.c */
bool file_stat(struct file_operation* operation);
bool file_list(struct file_operation* operation);
bool file_walk(struct file_operation* operation);
bool file_readlink(struct file_operation* operation);
/* file_read.c */
bool file_read(struct file_operation* operation);
/* file_write.c */
bool file_write(struct file_operation* operation);
/* file_change.c */
bool file_mkdir(struct file_operation* operation);
bool file_remove(struct file_operation* operation);
bool file_rename(struct file_operation* operation);
bool file_chmod(struct file_operation* operation);
bool file_chown(struct file_operation* operation);
bool file_symlink(struct file_operation* operation);
/* file_diff.c */
bool file_diff(struct file_operation* operation);
/* file_pack.c */
bool file_pack(struct file_operation* operation);
/* file_unpack.c */
bool file_unpack(struct file_operation* operation);

/* Sends the ENTRY of `path`, with an enum msb_file_change or 0. What it is called in `directory`,
 * or "" for what that descriptor is itself, only matters for a symbolic link. Returns an errno. */
int file_send_entry(struct file_stream* stream, int directory, const char* name, const char* path,
                    const struct stat* status, uint32_t change);

/* Fails with `code` on the request's path. */
bool file_fail(struct file_operation* operation, int code, const char* verb);

/* The tree of the operation that is under way; there is one at a time. */
struct file_tree* file_shared_tree(void);

#endif
