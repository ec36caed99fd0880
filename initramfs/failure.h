/* SPDX-License-Identifier: Apache-2.0 */
/* What a step that failed says: where, why, and one sentence for a person. */
#ifndef MSB_INITRAMFS_FAILURE_H
#define MSB_INITRAMFS_FAILURE_H

#include <stdbool.h>
#include <stdint.h>

struct failure {
  uint32_t stage; /* enum msb_stage */
  uint32_t code;  /* errno, or 0 */
  char text[512]; /* cut off where longer */
};

/*
 * Fills in `failure`; a `code` other than 0 adds what that errno means. Returns false, so that a
 * step can end with `return fail(...)`.
 */
__attribute__((format(printf, 4, 5))) bool fail(struct failure* failure, uint32_t stage, int code,
                                                const char* format, ...);

#endif
