/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool fail(struct failure* failure, uint32_t stage, int code, const char* format, ...) {
  failure->stage = stage;
  failure->code = (uint32_t)code;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(failure->text, sizeof failure->text, format, arguments);
  va_end(arguments);
  size_t used = strlen(failure->text);
  if (code != 0) {
    snprintf(failure->text + used, sizeof failure->text - used, ": %s", strerror(code));
  }
  return false;
}
