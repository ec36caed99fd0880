/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of the exec protocol, taken apart and put together. No I/O. */
#ifndef MSB_INITRAMFS_FRAMES_H
#define MSB_INITRAMFS_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/buffer.h"
#include "initramfs/failure.h"
#include "protocol/msb_exec.h"

#define FRAME_HEADER_SIZE sizeof(struct msb_frame_header)

/*
 * Of a stream's bytes, in the frames that the agent sends: with its header such a frame is just one
 * packet of Linux's virtio-vsock (64 KiB), and not a second one of a few bytes.
 */
#define FRAME_DATA_MAX (MSB_MAX_DATA - FRAME_HEADER_SIZE)

/* Where a stream of frames stands. Starts as all zeros. */
struct frame_reader {
  uint8_t header[FRAME_HEADER_SIZE];
  uint32_t header_filled; /* bytes of the header that have come */
  uint32_t type;          /* valid once the header is complete */
  uint32_t left;          /* payload bytes still to come; likewise */
};

/*
 * Takes bytes of the header from a piece of the stream, wherever it was cut. Returns how many it
 * took: 0 once the header is complete, and the rest of the piece is payload then.
 */
size_t frame_take_header(struct frame_reader* reader, const uint8_t* bytes, size_t length);

bool frame_header_is_complete(const struct frame_reader* reader);

/* Length of the whole payload of the frame at hand; its header is complete. */
uint32_t frame_length(const struct frame_reader* reader);

/* The payload was taken whole: a header comes next. */
void frame_end(struct frame_reader* reader);

/* Whether `type` is one that the host sends, and may be that long. */
bool frame_is_acceptable(uint32_t type, uint32_t length);

/* Writes a frame to `frame`, which has room for it. Returns its size. `payload` may be NULL when
 * `length` is 0. */
size_t frame_write(uint8_t* frame, uint32_t type, const void* payload, uint32_t length);

/* Writes only the header. */
void frame_write_header(uint8_t* frame, uint32_t type, uint32_t length);

/* Adds a frame to what is to be sent. False when there is no memory. */
bool frame_append(struct buffer* buffer, uint32_t type, const void* payload, uint32_t length);

/* Writes the payload of REFUSED or FAILED. Returns its length. */
uint32_t frame_failure(const struct failure* failure, uint8_t payload[MSB_MAX_SMALL]);

#endif
