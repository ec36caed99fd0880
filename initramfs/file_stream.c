/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/file_stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "initramfs/file_request.h"

void file_stream_open(struct file_stream* stream, int descriptor, const uint8_t* received,
                      size_t length) {
  memset(stream, 0, offsetof(struct file_stream, input));
  stream->descriptor = descriptor;
  if (length > 0) memcpy(stream->input, received, length);
  stream->input_end = length;
}

static size_t input_length(const struct file_stream* stream) {
  return stream->input_end - stream->input_start;
}

/*
 * Waits for more input, `needed` bytes at least (up to a frame, which the connection holds), rather
 * than for each of the small packets that they come in. That many must be sure to come.
 */
static bool fill(struct file_stream* stream, size_t needed) {
  if (stream->broken) return false;
  if (stream->input_start > 0) {
    memmove(stream->input, stream->input + stream->input_start, input_length(stream));
    stream->input_end -= stream->input_start;
    stream->input_start = 0;
  }
  int least = (int)needed;
  if (least != stream->least) {
    /* At best: without it there are more, smaller pieces. */
    setsockopt(stream->descriptor, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least);
    stream->least = least;
  }
  ssize_t n;
  do {
    n = recv(stream->descriptor, stream->input + stream->input_end,
             sizeof stream->input - stream->input_end, 0);
  } while (n < 0 && errno == EINTR);
  if (n <= 0) {
    stream->broken = true;
    return false;
  }
  stream->input_end += (size_t)n;
  return true;
}

static size_t header_left(const struct file_stream* stream) {
  return FRAME_HEADER_SIZE - stream->reader.header_filled;
}

static bool receive_header(struct file_stream* stream) {
  frame_end(&stream->reader);
  while (!frame_header_is_complete(&stream->reader)) {
    if (input_length(stream) == 0 && !fill(stream, header_left(stream))) return false;
    stream->input_start += frame_take_header(&stream->reader, stream->input + stream->input_start,
                                             input_length(stream));
  }
  return true;
}

bool file_stream_receive_request(struct file_stream* stream, uint32_t* type, uint8_t* payload,
                                 uint32_t* length) {
  stream->data_ended = false;
  if (!receive_header(stream)) return false;
  *type = stream->reader.type;
  *length = stream->reader.left;
  if (!file_request_is_type(*type) || *length < sizeof(struct msb_file_request) ||
      *length > MSB_MAX_REQUEST) {
    stream->broken = true;
    return false;
  }
  while (input_length(stream) < *length) {
    if (!fill(stream, *length - input_length(stream))) return false;
  }
  memcpy(payload, stream->input + stream->input_start, *length);
  stream->input_start += *length;
  stream->reader.left = 0;
  return true;
}

size_t file_stream_receive_data(struct file_stream* stream, size_t limit, const uint8_t** bytes) {
  if (stream->data_ended || stream->broken) return 0;
  if (stream->reader.left == 0) {
    if (!receive_header(stream)) return 0;
    if (stream->reader.type != MSB_FILE_DATA || stream->reader.left > MSB_MAX_DATA) {
      stream->broken = true;
      return 0;
    }
    if (stream->reader.left == 0) {
      stream->data_ended = true;
      return 0;
    }
  }
  if (input_length(stream) == 0 && !fill(stream, stream->reader.left)) return 0;
  size_t length = input_length(stream);
  if (length > stream->reader.left) length = stream->reader.left;
  if (length > limit) length = limit;
  *bytes = stream->input + stream->input_start;
  stream->input_start += length;
  stream->reader.left -= (uint32_t)length;
  return length;
}

void file_stream_drain(struct file_stream* stream) {
  const uint8_t* ignored;
  while (file_stream_receive_data(stream, FILE_STREAM_BUFFER, &ignored) > 0) {
  }
}

/* Completes the DATA frame that is being filled. */
static void close_frame(struct file_stream* stream) {
  if (!stream->frame_is_open) return;
  stream->frame_is_open = false;
  size_t length = stream->output_used - stream->frame_start - FRAME_HEADER_SIZE;
  if (length == 0) {
    stream->output_used = stream->frame_start;
    return;
  }
  frame_write_header(stream->output + stream->frame_start, MSB_FILE_DATA, (uint32_t)length);
}

void file_stream_flush(struct file_stream* stream) {
  close_frame(stream);
  size_t sent = 0;
  while (sent < stream->output_used && !file_stream_is_broken(stream)) {
    ssize_t n =
        send(stream->descriptor, stream->output + sent, stream->output_used - sent, MSG_NOSIGNAL);
    if (n > 0) {
      sent += (size_t)n;
    } else if (n == 0 || errno != EINTR) {
      stream->broken = true;
    }
  }
  stream->output_used = 0;
}

uint8_t* file_stream_space(struct file_stream* stream, size_t* room) {
  if (!stream->frame_is_open) {
    if (sizeof stream->output - stream->output_used <= FRAME_HEADER_SIZE) {
      file_stream_flush(stream);
    }
    stream->frame_is_open = true;
    stream->frame_start = stream->output_used;
    stream->output_used += FRAME_HEADER_SIZE;
  }
  size_t in_frame = stream->frame_start + FRAME_HEADER_SIZE + FRAME_DATA_MAX - stream->output_used;
  size_t in_buffer = sizeof stream->output - stream->output_used;
  *room = in_frame < in_buffer ? in_frame : in_buffer;
  return stream->output + stream->output_used;
}

void file_stream_commit(struct file_stream* stream, size_t length) {
  stream->output_used += length;
  size_t in_frame = stream->output_used - stream->frame_start - FRAME_HEADER_SIZE;
  if (in_frame == FRAME_DATA_MAX || stream->output_used == sizeof stream->output) {
    close_frame(stream);
    if (stream->output_used == sizeof stream->output) file_stream_flush(stream);
  }
}

void file_stream_send_data(struct file_stream* stream, const void* bytes, size_t length) {
  const uint8_t* from = bytes;
  while (length > 0) {
    size_t room;
    uint8_t* to = file_stream_space(stream, &room);
    size_t n = length < room ? length : room;
    memcpy(to, from, n);
    file_stream_commit(stream, n);
    from += n;
    length -= n;
  }
}

void file_stream_send(struct file_stream* stream, uint32_t type, const struct iovec* pieces,
                      int count) {
  close_frame(stream);
  size_t length = 0;
  for (int i = 0; i < count; i++) length += pieces[i].iov_len;
  if (FRAME_HEADER_SIZE + length > sizeof stream->output - stream->output_used) {
    file_stream_flush(stream);
  }
  uint8_t* to = stream->output + stream->output_used;
  frame_write_header(to, type, (uint32_t)length);
  to += FRAME_HEADER_SIZE;
  for (int i = 0; i < count; i++) {
    if (pieces[i].iov_len > 0) memcpy(to, pieces[i].iov_base, pieces[i].iov_len);
    to += pieces[i].iov_len;
  }
  stream->output_used += FRAME_HEADER_SIZE + length;
}

bool file_stream_is_broken(struct file_stream* stream) {
  struct pollfd poll_one = {.fd = stream->descriptor, .events = POLLRDHUP};
  if (!stream->broken && poll(&poll_one, 1, 0) > 0) stream->broken = true;
  return stream->broken;
}
