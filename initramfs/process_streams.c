/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "initramfs/connection.h"
#include "initramfs/frames.h"
#include "initramfs/process.h"
#include "initramfs/spawn.h"
#include "initramfs/terminal.h"

/* Of a pipe whose writer fills it: fewer turns between the two. */
#define BUSY_PIPE_SIZE (256 * 1024)

/* So that a fast writer does not keep the agent from the others. */
#define READS_PER_EVENT 4

/* What is read at once, on its way into a stream. */
static uint8_t scratch[FRAME_DATA_MAX];

static void on_input(struct watch* watch, uint32_t events);
static void on_output(struct watch* watch, uint32_t events);
static void on_channel(struct watch* watch, uint32_t events);

void process_open_streams(struct process* process, const struct spawned* spawned) {
  int epoll = process->all->epoll;
  watch_open(&process->input, epoll, spawned->input, process, on_input);
  watch_open(&process->pipes[MSB_STREAM_STDOUT], epoll, spawned->output, process, on_output);
  watch_open(&process->pipes[MSB_STREAM_STDERR], epoll, spawned->error, process, on_output);
  watch_open(&process->channel, epoll, spawned->channel, process, on_channel);
  process->slave = spawned->slave;
}

void process_close_streams(struct process* process) {
  watch_close(&process->input);
  for (int i = 0; i < PROCESS_PIPES; i++) watch_close(&process->pipes[i]);
  watch_close(&process->channel);
  if (process->slave >= 0) close(process->slave);
  process->slave = -1;
}

static bool owes(const struct process* process) {
  return process->owed[0] > 0 || process->owed[1] > 0;
}

static size_t bytes_in(const struct watch* pipe) {
  int bytes = 0;
  if (pipe->fd >= 0) ioctl(pipe->fd, FIONREAD, &bytes);
  return bytes > 0 ? (size_t)bytes : 0;
}

/* Finds what has to be read of the pipes before what is in the channel now: that came later. */
static void measure(struct process* process) {
  process->channel_ready = bytes_in(&process->channel);
  for (int i = 0; i < PROCESS_PIPES; i++) process->owed[i] = bytes_in(&process->pipes[i]);
  /* Its bytes may still be on their way. */
  if (process->slave >= 0) process->owed[MSB_STREAM_STDOUT] = TERMINAL_BUFFERED_MAX;
}

/* Without memory for what it read, a stream loses bytes that its connection was to get. */
static void keep(struct process* process, unsigned stream, size_t length) {
  stream_append(&process->streams[stream], scratch, length);
  if (process->connection != NULL && process->sent[stream] < process->streams[stream].first) {
    connection_break(process->connection);
  }
}

/* read(2), to be kept. What nobody keeps for later is read to where it is sent from. */
static ssize_t read_to_stream(struct process* process, unsigned stream, size_t length) {
  int descriptor = process->pipes[stream].fd;
  struct stream* into = &process->streams[stream];
  struct iovec pieces[2];
  int count = (process->flags & MSB_START_KEEP) == 0 ? stream_space(into, length, pieces) : 0;
  ssize_t n = count > 0 ? readv(descriptor, pieces, count) : read(descriptor, scratch, length);
  if (n > 0 && count > 0) {
    stream_filled(into, (size_t)n);
  } else if (n > 0) {
    keep(process, stream, (size_t)n);
  }
  return n;
}

static size_t smallest(size_t a, size_t b, size_t c) {
  size_t ab = a < b ? a : b;
  return ab < c ? ab : c;
}

static void read_pipe(struct process* process, unsigned stream, size_t limit) {
  struct watch* pipe = &process->pipes[stream];
  size_t length = smallest(limit, process_room(process, stream), sizeof scratch);
  if (pipe->fd < 0) process->owed[stream] = 0;
  if (pipe->fd < 0 || length == 0) return;
  ssize_t n = read_to_stream(process, stream, length);
  if (n < 0 && errno == EINTR) return;
  if (n < 0 && errno == EAGAIN) {
    if (process->slave < 0 || terminal_is_drained(pipe->fd)) process->owed[stream] = 0;
    return;
  }
  if (n <= 0) {
    watch_close(pipe);
    process->owed[stream] = 0;
    return;
  }
  if ((size_t)n == sizeof scratch && !process->busy[stream]) {
    process->busy[stream] = true;
    fcntl(pipe->fd, F_SETPIPE_SZ, BUSY_PIPE_SIZE); /* at best: a terminal has no such size */
  }
  size_t* owed = &process->owed[stream];
  *owed -= (size_t)n < *owed ? (size_t)n : *owed;
}

/* As far as there is room. */
static void pay(struct process* process) {
  for (unsigned i = 0; i < PROCESS_PIPES; i++) {
    size_t before;
    do {
      before = process->owed[i];
      if (before > 0) read_pipe(process, i, before);
    } while (process->owed[i] > 0 && process->owed[i] < before);
  }
}

static void read_channel(struct process* process) {
  if (process->channel_ready == 0 && process->state == PROCESS_STATE_RUNNING) {
    measure(process);
    if (process->channel_ready == 0) {
      uint8_t byte;
      ssize_t n = recv(process->channel.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      process->channel_read_ended = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
      return;
    }
  }
  pay(process);
  if (owes(process) || process->channel_ready == 0) return;
  size_t length =
      smallest(process->channel_ready, process_room(process, MSB_STREAM_CHANNEL), sizeof scratch);
  if (length == 0) return;
  ssize_t n = recv(process->channel.fd, scratch, length, MSG_DONTWAIT);
  if (n < 0 && errno == EINTR) return;
  if (n <= 0) {
    process->channel_ready = 0;
    process->channel_read_ended = n == 0 || errno != EAGAIN;
    return;
  }
  keep(process, MSB_STREAM_CHANNEL, (size_t)n);
  process->channel_ready -= (size_t)n;
  for (int i = 0; i < PROCESS_PIPES; i++) process->barrier[i] = process->streams[i].end;
}

/* One barrier at a time: bytes that were read later may have to wait for more of the pipes. */
static bool may_read_channel(const struct process* process) {
  if (process->channel_read_ended || process_room(process, MSB_STREAM_CHANNEL) == 0) return false;
  if (process->connection != NULL &&
      process->sent[MSB_STREAM_CHANNEL] < process->streams[MSB_STREAM_CHANNEL].end) {
    return false;
  }
  if (process->channel_ready > 0) return !owes(process);
  return process->state == PROCESS_STATE_RUNNING;
}

static bool may_read_pipe(const struct process* process, unsigned stream) {
  if (process_room(process, stream) == 0) return false;
  return process->state == PROCESS_STATE_RUNNING ||
         (process->state == PROCESS_STATE_DRAINING && process->owed[stream] > 0);
}

bool process_watch_streams(struct process* process) {
  bool watched = watch_set(&process->input, process->inputs[PROCESS_STDIN].waiting ? EPOLLOUT : 0);
  for (unsigned i = 0; i < PROCESS_PIPES; i++) {
    watched = watched && watch_set(&process->pipes[i], may_read_pipe(process, i) ? EPOLLIN : 0);
  }
  uint32_t channel = may_read_channel(process) ? EPOLLIN : 0;
  if (process->inputs[PROCESS_CHANNEL].waiting) channel |= EPOLLOUT;
  return watched && watch_set(&process->channel, channel);
}

void process_begin_draining(struct process* process) {
  measure(process);
  watch_close(&process->input);
  process->channel_write_ended = true;
}

/* Reading is tried, rather than waited for: another program may have taken the bytes meanwhile, and
 * no event would come. */
void process_pump(struct process* process) {
  if (process->channel_ready == 0 && process->state != PROCESS_STATE_DRAINING) return;
  pay(process);
  size_t before = 0;
  while (process->state == PROCESS_STATE_DRAINING && process->channel_ready != before &&
         may_read_channel(process)) {
    before = process->channel_ready;
    read_channel(process);
  }
}

bool process_is_drained(const struct process* process) {
  return !owes(process) && (process->channel_ready == 0 || process->channel_read_ended);
}

/* One piece, and of a pipe that was full at once what follows. */
static void read_busy_pipe(struct process* process, unsigned stream) {
  for (int reads = 0; reads < READS_PER_EVENT; reads++) {
    uint64_t before = process->streams[stream].end;
    read_pipe(process, stream, sizeof scratch);
    if (process->streams[stream].end - before < sizeof scratch) return;
    if (process->connection != NULL) process_deliver(process);
  }
}

static void on_output(struct watch* watch, uint32_t events) {
  (void)events;
  struct process* process = watch->owner;
  unsigned stream =
      watch == &process->pipes[MSB_STREAM_STDOUT] ? MSB_STREAM_STDOUT : MSB_STREAM_STDERR;
  if (process->state == PROCESS_STATE_DRAINING) {
    read_pipe(process, stream, process->owed[stream]);
  } else {
    read_busy_pipe(process, stream);
  }
  process_settle(process);
}

static void resume(struct process* process, enum process_input input) {
  process->inputs[input].waiting = false;
  if (process->connection != NULL) connection_resume(process->connection);
}

static void on_input(struct watch* watch, uint32_t events) {
  (void)events;
  struct process* process = watch->owner;
  resume(process, PROCESS_STDIN);
  process_settle(process);
}

static void on_channel(struct watch* watch, uint32_t events) {
  struct process* process = watch->owner;
  bool reading = (watch->events & EPOLLIN) != 0;
  if (process->inputs[PROCESS_CHANNEL].waiting && (events & ~(uint32_t)EPOLLIN) != 0) {
    resume(process, PROCESS_CHANNEL);
  }
  if (reading && (events & ~(uint32_t)EPOLLOUT) != 0 && process->channel.fd >= 0) {
    read_channel(process);
  }
  process_settle(process);
}

static bool takes_input(const struct process* process, enum process_input input) {
  return input == PROCESS_STDIN ? process->input.fd >= 0 : !process->channel_write_ended;
}

static ssize_t write_input(const struct process* process, enum process_input input,
                           const uint8_t* bytes, size_t length) {
  if (input == PROCESS_STDIN) return write(process->input.fd, bytes, length);
  return send(process->channel.fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* It reads no more: what comes is dropped, as a shell would. */
static void close_input(struct process* process, enum process_input input) {
  if (input == PROCESS_STDIN) {
    watch_close(&process->input);
  } else if (!process->channel_write_ended) {
    shutdown(process->channel.fd, SHUT_WR);
    process->channel_write_ended = true;
  }
}

size_t process_give(struct process* process, enum process_input input, const uint8_t* bytes,
                    size_t length) {
  struct input* state = &process->inputs[input];
  size_t given = 0;
  while (given < length && takes_input(process, input)) {
    ssize_t n = write_input(process, input, bytes + given, length - given);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      state->waiting = true;
      state->taken += given;
      return given;
    }
    if (n < 0) {
      close_input(process, input);
    } else {
      given += (size_t)n;
    }
  }
  state->taken += length;
  return length;
}

bool process_end_input(struct process* process, enum process_input input) {
  struct input* state = &process->inputs[input];
  int character = input == PROCESS_STDIN && process->slave >= 0 && process->input.fd >= 0
                      ? terminal_end_of_file(process->slave)
                      : -1;
  if (character >= 0) {
    uint8_t byte = (uint8_t)character;
    ssize_t n = write(process->input.fd, &byte, 1);
    if (n < 0 && errno == EAGAIN) {
      state->waiting = true;
      return false;
    }
  } else if (input == PROCESS_CHANNEL || process->slave < 0) {
    close_input(process, input);
  }
  state->ended = true;
  return true;
}
