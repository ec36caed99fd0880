/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/frames.h"

#include <string.h>

#include "initramfs/file_request.h"

/* Of ADD_ENTROPY, as docs/exec-protocol.md has it. */
#define ENTROPY_MAX 512u

/* The structures of the protocol are little-endian, and so is every machine that this init runs on.
 */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "payloads are copied as they are");

size_t frame_take_header(struct frame_reader* reader, const uint8_t* bytes, size_t length) {
  size_t missing = FRAME_HEADER_SIZE - reader->header_filled;
  size_t taken = length < missing ? length : missing;
  if (taken > 0) memcpy(reader->header + reader->header_filled, bytes, taken);
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

uint32_t frame_length(const struct frame_reader* reader) {
  struct msb_frame_header header;
  memcpy(&header, reader->header, sizeof header);
  return header.length;
}

void frame_end(struct frame_reader* reader) {
  reader->header_filled = 0;
}

/* What the type allows: a fixed length has both the same. */
struct bounds {
  uint32_t least;
  uint32_t most;
};

static struct bounds bounds_of(uint32_t type) {
  switch (type) {
    case MSB_SHUTDOWN:
      return (struct bounds){sizeof(struct msb_shutdown), sizeof(struct msb_shutdown)};
    case MSB_START: /* one that is too short is refused with a reason */
      return (struct bounds){0, MSB_MAX_START};
    case MSB_ATTACH:
      return (struct bounds){sizeof(struct msb_attach), sizeof(struct msb_attach)};
    case MSB_STDIN:
    case MSB_CHANNEL_INPUT:
    case MSB_FILE_DATA:
      return (struct bounds){0, MSB_MAX_DATA};
    case MSB_PING:
      return (struct bounds){0, MSB_MAX_SMALL};
    case MSB_SIGNAL:
      return (struct bounds){sizeof(struct msb_signal), sizeof(struct msb_signal)};
    case MSB_RESIZE:
      return (struct bounds){sizeof(struct msb_resize), sizeof(struct msb_resize)};
    case MSB_WAIT:
    case MSB_FORGET:
      return (struct bounds){sizeof(struct msb_process_id), sizeof(struct msb_process_id)};
    case MSB_LIST:
    case MSB_METRICS:
    case MSB_LISTENERS:
    case MSB_FILES:
      return (struct bounds){0, 0};
    case MSB_SET_CLOCK:
      return (struct bounds){sizeof(struct msb_clock), sizeof(struct msb_clock)};
    case MSB_ADD_ENTROPY:
      return (struct bounds){1, ENTROPY_MAX};
    case MSB_SET_NAMES:
    case MSB_SHARE:
    case MSB_UNSHARE:
      return (struct bounds){0, MSB_MAX_REQUEST};
    case MSB_SOCKET_OWNER:
      return (struct bounds){sizeof(struct msb_socket), sizeof(struct msb_socket)};
    case MSB_CONNECT:
      return (struct bounds){sizeof(struct msb_connect), MSB_MAX_SMALL};
    default:
      if (file_request_is_type(type)) {
        return (struct bounds){sizeof(struct msb_file_request), MSB_MAX_REQUEST};
      }
      return (struct bounds){1, 0};
  }
}

bool frame_is_acceptable(uint32_t type, uint32_t length) {
  struct bounds bounds = bounds_of(type);
  return length >= bounds.least && length <= bounds.most;
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

bool frame_append(struct buffer* buffer, uint32_t type, const void* payload, uint32_t length) {
  uint8_t header[FRAME_HEADER_SIZE];
  frame_write_header(header, type, length);
  /* Room for both before either: a header without its payload must never be sent. */
  return buffer_reserve(buffer, sizeof header + length) &&
         buffer_append(buffer, header, sizeof header) && buffer_append(buffer, payload, length);
}

uint32_t frame_failure(const struct failure* failure, uint8_t payload[MSB_MAX_SMALL]) {
  struct msb_failure fixed = {.stage = failure->stage, .code = failure->code};
  size_t text = strlen(failure->text);
  memcpy(payload, &fixed, sizeof fixed);
  memcpy(payload + sizeof fixed, failure->text, text);
  return (uint32_t)(sizeof fixed + text);
}
