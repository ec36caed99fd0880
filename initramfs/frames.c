/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/frames.h"

#include <string.h>

/* The structures of the protocol are little-endian, and so is every machine that this init runs on.
 */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "payloads are copied as they are");

size_t frame_take_header(struct frame_reader* reader, const uint8_t* bytes, size_t length) {
  size_t missing = FRAME_HEADER_SIZE - reader->header_filled;
  size_t taken = length < missing ? length : missing;
  memcpy(reader->header + reader->header_filled, bytes, taken);
  reader->header_filled += (uint32_t)taken;
  if (taken > 0 && frame_header_is_complete(reader)) {
    struct msb_frame_header header;
    memcpy(&header, reader->header, sizeof header);
    reader->type = header.type;
    reader->left = header.length;
  }
  return taken;
}

bool frame_header_is_complete(const struct frame_reader* reader) {
  return reader->header_filled == FRAME_HEADER_SIZE;
}

void frame_end(struct frame_reader* reader) {
  reader->header_filled = 0;
}

bool frame_is_acceptable(uint32_t type, uint32_t length) {
  switch (type) {
    case MSB_SIGNAL:
      return length == sizeof(struct msb_signal);
    case MSB_SHUTDOWN:
      return length == 0;
    case MSB_START:
      return length <= MSB_MAX_START;
    case MSB_STDIN:
      return length <= MSB_MAX_DATA;
    default:
      return false;
  }
}

size_t frame_write(uint8_t* frame, uint32_t type, const void* payload, uint32_t length) {
  frame_write_header(frame, type, length);
  if (length > 0) memcpy(frame + FRAME_HEADER_SIZE, payload, length);
  return FRAME_HEADER_SIZE + length;
}

void frame_write_header(uint8_t* frame, uint32_t type, uint32_t length) {
  struct msb_frame_header header = {.type = type, .length = length};
  memcpy(frame, &header, sizeof header);
}
