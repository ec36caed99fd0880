/* SPDX-License-Identifier: Apache-2.0 */
/* The payload of START, parsed. No I/O. */
#ifndef MSB_INITRAMFS_START_REQUEST_H
#define MSB_INITRAMFS_START_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/failure.h"
#include "protocol/msb_exec.h"

/*
 * Arguments and variables together. The kernel never executes more: their pointers may take a
 * quarter of the stack limit of 8 MiB (bprm_stack_limits in fs/exec.c).
 */
#define START_STRINGS_MAX (256u * 1024u)

struct start_request {
  struct msb_start fixed;
  struct msb_limit limits[MSB_LIMITS_MAX]; /* fixed.limits of them */
  char* label;
  char* user;
  char* directory;
  char** groups;    /* ends with NULL; all vectors are in this allocation */
  char** arguments; /* likewise, as execve(2) wants it */
  char** variables; /* likewise, and there is room for one more */
};

/*
 * The strings of `request` point into `payload`, which must outlive it. Fails with
 * MSB_STAGE_REQUEST and EINVAL or E2BIG, or MSB_STAGE_RESOURCES.
 */
bool start_request_parse(uint8_t* payload, size_t length, struct start_request* request,
                         struct failure* failure);

/* Frees the vectors. Does nothing to a request of all zeros. */
void start_request_free(struct start_request* request);

#endif
