/* SPDX-License-Identifier: Apache-2.0 */
/* File requests (docs/exec-protocol.md), taken apart and checked. No I/O. */
#ifndef MSB_INITRAMFS_FILE_REQUEST_H
#define MSB_INITRAMFS_FILE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/failure.h"
#include "protocol/msb_exec.h"

struct file_request {
  uint32_t type;
  struct msb_file_request fields; /* only such as the type knows */
  const char* path;
  const char* new_path; /* RENAME: the new name; SYMLINK: the link, and `path` is its target */
};

/* Whether it is the type of one. */
bool file_request_is_type(uint32_t type);

/* Takes a payload apart; `request` points into it. The type is a file request's and the length at
 * least that of the fixed part. Fails with MSB_STAGE_REQUEST. */
bool file_request_parse(uint32_t type, const uint8_t* payload, size_t length,
                        struct file_request* request, struct failure* failure);

/* Whether the host sends DATA behind a request of this type. */
bool file_request_has_data(uint32_t type);

#endif
