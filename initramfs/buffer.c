/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/buffer.h"

#include <stdlib.h>
#include <string.h>

size_t buffer_length(const struct buffer* buffer) {
  return buffer->end - buffer->start;
}

const uint8_t* buffer_bytes(const struct buffer* buffer) {
  return buffer->data == NULL ? (const uint8_t*)"" : buffer->data + buffer->start;
}

bool buffer_reserve(struct buffer* buffer, size_t length) {
  if (buffer->capacity - buffer->end >= length) return true;
  if (buffer->start > 0) {
    memmove(buffer->data, buffer->data + buffer->start, buffer_length(buffer));
    buffer->end -= buffer->start;
    buffer->start = 0;
    if (buffer->capacity - buffer->end >= length) return true;
  }
  size_t needed = buffer->end + length;
  size_t capacity = buffer->capacity * 2 > needed ? buffer->capacity * 2 : needed;
  uint8_t* data = realloc(buffer->data, capacity);
  if (data == NULL) return false;
  buffer->data = data;
  buffer->capacity = capacity;
  return true;
}

bool buffer_append(struct buffer* buffer, const void* bytes, size_t length) {
  if (length == 0) return true;
  if (!buffer_reserve(buffer, length)) return false;
  memcpy(buffer->data + buffer->end, bytes, length);
  buffer->end += length;
  return true;
}

void buffer_consume(struct buffer* buffer, size_t length) {
  buffer->start += length;
  if (buffer->start == buffer->end) buffer_free(buffer);
}

void buffer_free(struct buffer* buffer) {
  free(buffer->data);
  memset(buffer, 0, sizeof *buffer);
}
