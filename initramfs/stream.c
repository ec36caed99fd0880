/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/stream.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_MIN 4096u

#define SPARE_BLOCKS 8

static uint8_t* spares[SPARE_BLOCKS];
static int spare_count;

static uint8_t* allocate(size_t size) {
  if (size == STREAM_BLOCK && spare_count > 0) return spares[--spare_count];
  return malloc(size);
}

static void release(uint8_t* data, size_t size) {
  if (size == STREAM_BLOCK && spare_count < SPARE_BLOCKS) {
    spares[spare_count++] = data;
  } else {
    free(data);
  }
}

static size_t smaller(size_t a, size_t b) {
  return a < b ? a : b;
}

/* Makes room for `needed` bytes, or as many as may be. */
static void grow(struct stream* stream, size_t needed) {
  size_t size = stream->size < SIZE_MIN ? SIZE_MIN : stream->size;
  while (size < needed && size < stream->capacity) size *= 2;
  size = smaller(size, stream->capacity);
  if (stream->capacity == STREAM_BLOCK) size = STREAM_BLOCK;
  if (size <= stream->size) return;
  uint8_t* data = allocate(size);
  if (data == NULL) {
    /* Keeps what it has. A stream that has nothing yet tries again with the next byte. */
    if (stream->size > 0) stream->capacity = stream->size;
    return;
  }
  struct iovec pieces[2];
  int count = stream_pieces(stream, stream->first, (size_t)(stream->end - stream->first), pieces);
  uint64_t offset = stream->first;
  for (int i = 0; i < count; i++) {
    const uint8_t* bytes = pieces[i].iov_base;
    size_t left = pieces[i].iov_len;
    while (left > 0) {
      size_t at = (size_t)(offset % size);
      size_t piece = smaller(left, size - at);
      memcpy(data + at, bytes, piece);
      bytes += piece;
      left -= piece;
      offset += piece;
    }
  }
  release(stream->data, stream->size);
  stream->data = data;
  stream->size = size;
}

void stream_append(struct stream* stream, const uint8_t* bytes, size_t length) {
  size_t kept = (size_t)(stream->end - stream->first);
  if (kept + length > stream->size) grow(stream, kept + length);
  size_t skipped = length > stream->size ? length - stream->size : 0;
  stream->end += skipped;
  bytes += skipped;
  length -= skipped;
  if (length > 0) {
    size_t at = (size_t)(stream->end % stream->size);
    size_t piece = smaller(length, stream->size - at);
    memcpy(stream->data + at, bytes, piece);
    memcpy(stream->data, bytes + piece, length - piece);
    stream->end += length;
  }
  if (stream->end - stream->first > stream->size) stream->first = stream->end - stream->size;
}

int stream_space(struct stream* stream, size_t length, struct iovec pieces[2]) {
  size_t kept = (size_t)(stream->end - stream->first);
  if (kept + length > stream->size) grow(stream, kept + length);
  return kept + length > stream->size ? 0 : stream_pieces(stream, stream->end, length, pieces);
}

void stream_filled(struct stream* stream, size_t length) {
  stream->end += length;
}

int stream_pieces(const struct stream* stream, uint64_t offset, size_t length,
                  struct iovec pieces[2]) {
  if (length == 0) return 0;
  size_t at = (size_t)(offset % stream->size);
  size_t piece = smaller(length, stream->size - at);
  pieces[0].iov_base = stream->data + at;
  pieces[0].iov_len = piece;
  if (piece == length) return 1;
  pieces[1].iov_base = stream->data;
  pieces[1].iov_len = length - piece;
  return 2;
}

void stream_release(struct stream* stream, uint64_t offset) {
  if (offset > stream->first) stream->first = offset;
  if (stream->first == stream->end) stream_free(stream);
}

void stream_free(struct stream* stream) {
  release(stream->data, stream->size);
  stream->data = NULL;
  stream->size = 0;
  stream->first = stream->end;
}
