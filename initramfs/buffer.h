/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that wait. Holds no memory while empty, so that an idle process costs none. */
#ifndef MSB_INITRAMFS_BUFFER_H
#define MSB_INITRAMFS_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Starts as all zeros; the bytes are data[start] to data[end - 1]. */
struct buffer {
  uint8_t* data;
  size_t start;
  size_t end;
  size_t capacity;
};

size_t buffer_length(const struct buffer* buffer);

/* The bytes. Never NULL, to which C allows not even 0 to be added. */
const uint8_t* buffer_bytes(const struct buffer* buffer);

/* Makes room for `length` more bytes. False when there is no memory. */
bool buffer_reserve(struct buffer* buffer, size_t length);

/* Adds a copy of `bytes` at the end. False when there is no memory. Its users bound the length. */
bool buffer_append(struct buffer* buffer, const void* bytes, size_t length);

/* Drops the first `length` bytes. */
void buffer_consume(struct buffer* buffer, size_t length);

void buffer_free(struct buffer* buffer);

#endif
