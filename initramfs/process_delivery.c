/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/connection.h"
#include "initramfs/frames.h"
#include "initramfs/process.h"

/* So that a fast connection does not keep the agent from the others. */
#define FRAMES_PER_ROUND 8

#define NO_STREAM MSB_STREAMS

static const uint32_t frame_types[MSB_STREAMS] = {MSB_STDOUT, MSB_STDERR, MSB_CHANNEL};

static uint64_t unsent(const struct process* process, unsigned stream) {
  return process->streams[stream].end - process->sent[stream];
}

size_t process_room(const struct process* process, unsigned stream) {
  if (process->connection == NULL) return SIZE_MAX;
  uint64_t waiting = unsent(process, stream);
  size_t capacity = process->streams[stream].capacity;
  return waiting < capacity ? capacity - (size_t)waiting : 0;
}

bool process_has_unsent(const struct process* process) {
  for (unsigned i = 0; i < MSB_STREAMS; i++) {
    if (unsent(process, i) > 0) return true;
  }
  return false;
}

/* The channel comes before the pipes where it may, and those take turns: a process that writes into
 * one without end must not hold up the others. */
static unsigned choose_stream(const struct process* process) {
  if (unsent(process, MSB_STREAM_CHANNEL) > 0 && process->sent[0] >= process->barrier[0] &&
      process->sent[1] >= process->barrier[1]) {
    return MSB_STREAM_CHANNEL;
  }
  unsigned other =
      process->frame_stream == MSB_STREAM_STDOUT ? MSB_STREAM_STDERR : MSB_STREAM_STDOUT;
  if (unsent(process, other) > 0) return other;
  return unsent(process, 1 - other) > 0 ? 1 - other : NO_STREAM;
}

static void count_sent(struct process* process, size_t bytes) {
  unsigned stream = process->frame_stream;
  process->sent[stream] += bytes;
  process->frame_left -= bytes;
  if ((process->flags & MSB_START_KEEP) == 0) {
    stream_release(&process->streams[stream], process->sent[stream]);
  }
}

/* A frame's length is told before its bytes are: what was begun is finished with that length. False
 * when the connection did not take all of it. */
static bool begin_frame(struct process* process, unsigned stream) {
  size_t length = FRAME_DATA_MAX;
  if (unsent(process, stream) < length) length = (size_t)unsent(process, stream);
  uint8_t header[FRAME_HEADER_SIZE];
  frame_write_header(header, frame_types[stream], (uint32_t)length);
  struct iovec pieces[3] = {{.iov_base = header, .iov_len = sizeof header}};
  int count =
      1 + stream_pieces(&process->streams[stream], process->sent[stream], length, pieces + 1);
  size_t sent = connection_write(process->connection, pieces, count);
  if (sent == 0) return false;
  process->frame_stream = stream;
  process->frame_left = length;
  if (sent < sizeof header) {
    connection_queue(process->connection, header + sent, sizeof header - sent);
  } else {
    count_sent(process, sent - sizeof header);
  }
  return process->frame_left == 0;
}

static bool continue_frame(struct process* process) {
  unsigned stream = process->frame_stream;
  struct iovec pieces[2];
  int count =
      stream_pieces(&process->streams[stream], process->sent[stream], process->frame_left, pieces);
  count_sent(process, connection_write(process->connection, pieces, count));
  return process->frame_left == 0;
}

static bool send_next(struct process* process) {
  if (process->frame_left > 0) return continue_frame(process);
  unsigned stream = choose_stream(process);
  return stream != NO_STREAM && begin_frame(process, stream);
}

void process_deliver(struct process* process) {
  int frames = 0;
  while (frames < FRAMES_PER_ROUND && connection_is_idle(process->connection) &&
         send_next(process)) {
    frames++;
  }
}

void process_finish_frame(struct process* process) {
  unsigned stream = process->frame_stream;
  struct iovec pieces[2];
  int count =
      stream_pieces(&process->streams[stream], process->sent[stream], process->frame_left, pieces);
  for (int i = 0; i < count; i++) {
    connection_queue(process->connection, pieces[i].iov_base, pieces[i].iov_len);
  }
  count_sent(process, process->frame_left);
}
