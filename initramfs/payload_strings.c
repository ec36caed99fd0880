/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/payload_strings.h"

#include <errno.h>
#include <string.h>

#include "protocol/msb_exec.h"

bool payload_strings(const uint8_t* payload, size_t length, const char* name, size_t count,
                     const char** strings, struct failure* failure) {
  const char* next = (const char*)payload;
  const char* end = next + length;
  for (size_t i = 0; i < count; i++) {
    const char* terminator = next == end ? NULL : memchr(next, '\0', (size_t)(end - next));
    if (terminator == NULL) {
      return fail(failure, MSB_STAGE_REQUEST, EINVAL, "%s: fewer than %zu strings", name, count);
    }
    strings[i] = next;
    next = terminator + 1;
  }
  if (next == end) return true;
  return fail(failure, MSB_STAGE_REQUEST, EINVAL, "%s: bytes after the last string", name);
}
