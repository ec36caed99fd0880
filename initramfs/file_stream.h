/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of the file service: requests and data come in, answers and data go out, with
 * blocking I/O in large pieces. Once the host has closed the connection or broken the protocol it
 * is `broken`: nothing comes in any more, and what is sent goes nowhere.
 */
#ifndef MSB_INITRAMFS_FILE_STREAM_H
#define MSB_INITRAMFS_FILE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "initramfs/frames.h"

/* Four full frames of data: fewer, larger system calls, and a host that reads one piece while the
 * next is made. */
#define FILE_STREAM_BUFFER (4u * (FRAME_HEADER_SIZE + FRAME_DATA_MAX))

struct file_stream {
  int descriptor;
  bool broken;
  bool data_ended; /* the empty DATA of this request has come */
  struct frame_reader reader;
  int least;          /* SO_RCVLOWAT; 0 while nothing was set */
  size_t input_start; /* what has come and nobody took */
  size_t input_end;
  size_t output_used; /* what waits to be sent */
  size_t frame_start; /* in the output, of the DATA frame that is being filled */
  bool frame_is_open;
  uint8_t input[FILE_STREAM_BUFFER];
  uint8_t output[FILE_STREAM_BUFFER];
};

/* `received`: what was read of the connection already, at most FILE_STREAM_BUFFER bytes. */
void file_stream_open(struct file_stream* stream, int descriptor, const uint8_t* received,
                      size_t length);

/* The next request, at most MSB_MAX_REQUEST bytes. False when the stream is broken. */
bool file_stream_receive_request(struct file_stream* stream, uint32_t* type, uint8_t* payload,
                                 uint32_t* length);

/* The next piece of the host's DATA, at most `limit` bytes (more than 0), valid until the next
 * call. Returns 0 at its end, and when the stream is broken. */
size_t file_stream_receive_data(struct file_stream* stream, size_t limit, const uint8_t** bytes);

/* Reads on to the empty DATA. */
void file_stream_drain(struct file_stream* stream);

/* Room for DATA, always some, and how much of it was used. */
uint8_t* file_stream_space(struct file_stream* stream, size_t* room);
void file_stream_commit(struct file_stream* stream, size_t length);

void file_stream_send_data(struct file_stream* stream, const void* bytes, size_t length);

/* Sends a frame of a few kilobytes at most, put together from pieces. It may wait for
 * file_stream_flush(). */
void file_stream_send(struct file_stream* stream, uint32_t type, const struct iovec* pieces,
                      int count);

void file_stream_flush(struct file_stream* stream);

/* Whether the stream is broken; also asks whether the host has closed it, for work that neither
 * reads nor writes it for long. */
bool file_stream_is_broken(struct file_stream* stream);

#endif
