/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "initramfs/buffer.h"
#include "initramfs/frames.h"
#include "initramfs/oom.h"
#include "initramfs/spawn.h"
#include "initramfs/watch.h"

enum process_state {
  WAITING,  /* for START to come whole */
  STARTING, /* forked; not known yet whether the program runs */
  RUNNING,
  DRAINING, /* reaped; what it had written is being sent */
  ENDING,   /* the last frame is being sent */
  REMOVED
};

struct process {
  struct process* next;
  struct process* previous;
  struct processes* all;
  enum process_state state;
  uint32_t id;
  pid_t pid; /* 0 before the fork and after reaping */

  struct watch connection;
  struct watch input; /* the pipes, as named by the process */
  struct watch output;
  struct watch error;
  struct watch report;

  struct frame_reader reader;
  bool input_ended; /* the empty STDIN came */
  struct buffer start;
  struct start_request request; /* points into `start` */
  struct buffer received;       /* from the host, while the process does not take it */
  struct buffer unsent;         /* for the host, while it does not take it */

  bool killed_for_memory;
  int status;           /* wait(2)'s */
  int output_remaining; /* bytes in the pipes when it was reaped */
  int error_remaining;
};

/*
 * One frame of data with its header on the way through the agent. One for all, since only what a
 * peer does not take at once has to be kept.
 */
static uint8_t scratch[FRAME_HEADER_SIZE + MSB_MAX_DATA];

static void on_connection(struct watch* watch, uint32_t events);
static void on_input(struct watch* watch, uint32_t events);
static void on_output(struct watch* watch, uint32_t events);
static void on_report(struct watch* watch, uint32_t events);

static void remove_process(struct process* process) {
  if (process->previous != NULL) {
    process->previous->next = process->next;
  } else {
    process->all->first = process->next;
  }
  if (process->next != NULL) process->next->previous = process->previous;
  process->state = REMOVED;
  process->next = process->all->removed;
  process->all->removed = process;
}

static void close_pipes(struct process* process) {
  watch_close(&process->input);
  watch_close(&process->output);
  watch_close(&process->error);
  watch_close(&process->report);
}

/* Ends the conversation. The process itself is forgotten only when it has been reaped. */
static void close_connection(struct process* process) {
  watch_close(&process->connection);
  close_pipes(process);
  buffer_free(&process->start);
  start_request_free(&process->request);
  buffer_free(&process->received);
  buffer_free(&process->unsent);
  process->state = ENDING;
  if (process->pid == 0) remove_process(process);
}

/*
 * The host vanished or broke the protocol. The process has not been reaped, so that its pid, and
 * the process group of that number, are still its own.
 */
static void abandon(struct process* process) {
  if (process->pid != 0) {
    kill(-process->pid, SIGKILL);
    kill(process->pid, SIGKILL); /* it may not have come to its setsid() yet */
  }
  close_connection(process);
}

/* Sends, and keeps what the host does not take now. False when the connection was lost, and all is
 * closed then. */
static bool send_frame(struct process* process, const uint8_t* frame, size_t length) {
  size_t sent = 0;
  while (buffer_length(&process->unsent) == 0 && sent < length) {
    ssize_t n =
        send(process->connection.fd, frame + sent, length - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) {
      abandon(process);
      return false;
    }
    sent += (size_t)n;
  }
  if (!buffer_append(&process->unsent, frame + sent, length - sent)) {
    abandon(process);
    return false;
  }
  return true;
}

static bool send_small(struct process* process, uint32_t type, const void* payload,
                       uint32_t length) {
  uint8_t frame[FRAME_HEADER_SIZE + MSB_MAX_SMALL];
  return send_frame(process, frame, frame_write(frame, type, payload, length));
}

/* After the last frame: what is sent stays on its way when the connection is closed. */
static void end(struct process* process) {
  close_pipes(process);
  process->state = ENDING;
  if (buffer_length(&process->unsent) == 0) close_connection(process);
}

static void refuse(struct process* process, const struct failure* failure) {
  uint8_t payload[MSB_MAX_SMALL];
  struct msb_failure fixed = {.stage = failure->stage, .code = failure->code};
  size_t text = strlen(failure->text);
  memcpy(payload, &fixed, sizeof fixed);
  memcpy(payload + sizeof fixed, failure->text, text);
  if (send_small(process, MSB_REFUSED, payload, (uint32_t)(sizeof fixed + text))) end(process);
}

static void send_exited(struct process* process) {
  struct msb_exited exited = {.kind = MSB_EXIT_STATUS};
  if (WIFSIGNALED(process->status)) {
    exited.kind = MSB_EXIT_SIGNAL;
    exited.value = (uint32_t)WTERMSIG(process->status);
    if (process->killed_for_memory) exited.flags = MSB_EXITED_OUT_OF_MEMORY;
  } else {
    exited.value = (uint32_t)WEXITSTATUS(process->status);
  }
  if (send_small(process, MSB_EXITED, &exited, sizeof exited)) end(process);
}

/*
 * Passes on at most `limit` bytes of a pipe as one frame. Returns how many, or 0: nothing there,
 * the end of the pipe, or the connection was lost.
 */
static size_t pass_on(struct process* process, struct watch* pipe, uint32_t type, size_t limit) {
  if (limit > MSB_MAX_DATA) limit = MSB_MAX_DATA;
  ssize_t n = read(pipe->fd, scratch + FRAME_HEADER_SIZE, limit);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (n <= 0) {
    watch_close(pipe);
    return 0;
  }
  frame_write_header(scratch, type, (uint32_t)n);
  return send_frame(process, scratch, FRAME_HEADER_SIZE + (size_t)n) ? (size_t)n : 0;
}

/* Sends the rest of one pipe as far as the host takes it. True when nothing is left. */
static bool drain_pipe(struct process* process, struct watch* pipe, uint32_t type, int* remaining) {
  while (*remaining > 0 && buffer_length(&process->unsent) == 0) {
    size_t n = pass_on(process, pipe, type, (size_t)*remaining);
    if (process->state != DRAINING) return false;
    *remaining = n == 0 ? 0 : *remaining - (int)n;
  }
  return *remaining == 0;
}

static void drain(struct process* process) {
  if (drain_pipe(process, &process->output, MSB_STDOUT, &process->output_remaining) &&
      drain_pipe(process, &process->error, MSB_STDERR, &process->error_remaining)) {
    send_exited(process);
  }
}

static int bytes_in(const struct watch* pipe) {
  int bytes = 0;
  if (pipe->fd >= 0) ioctl(pipe->fd, FIONREAD, &bytes);
  return bytes;
}

static void start(struct process* process) {
  struct failure failure;
  struct spawned spawned;
  if (!start_request_parse(process->start.data, buffer_length(&process->start), &process->request,
                           &failure) ||
      !spawn(&process->request, &spawned, &failure)) {
    refuse(process, &failure);
    return;
  }
  int epoll = process->all->epoll;
  process->pid = spawned.pid;
  watch_open(&process->input, epoll, spawned.input, process, on_input);
  watch_open(&process->output, epoll, spawned.output, process, on_output);
  watch_open(&process->error, epoll, spawned.error, process, on_output);
  watch_open(&process->report, epoll, spawned.report, process, on_report);
  process->state = STARTING;
}

static void started(struct process* process) {
  struct failure failure;
  struct msb_started payload = {0};
  bool runs = spawn_result(process->report.fd, &process->request, &payload.pid, &failure);
  watch_close(&process->report);
  if (!runs) {
    refuse(process, &failure);
    return;
  }
  buffer_free(&process->start);
  start_request_free(&process->request);
  process->id = ++process->all->last_id;
  payload.process = process->id;
  process->state = RUNNING;
  send_small(process, MSB_STARTED, &payload, sizeof payload);
}

/* Gives bytes to the process. Returns how many are done with; fewer than `length` when it must read
 * some first. */
static size_t give_input(struct process* process, const uint8_t* bytes, size_t length) {
  size_t given = 0;
  while (given < length && process->input.fd >= 0) {
    ssize_t n = write(process->input.fd, bytes + given, length - given);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return given;
    if (n < 0) {
      watch_close(
          &process->input); /* EPIPE: it reads no more, and the rest is dropped as a shell would */
    } else {
      given += (size_t)n;
    }
  }
  return length;
}

static bool begin_frame(struct process* process) {
  const struct frame_reader* reader = &process->reader;
  if (!frame_is_acceptable(reader->type, reader->left)) return false;
  if (reader->type == MSB_START) return process->state == WAITING;
  if (reader->type != MSB_STDIN || process->input_ended || process->state == WAITING) return false;
  if (reader->left == 0) {
    process->input_ended = true;
    watch_close(&process->input);
  }
  return true;
}

/* Returns the bytes of payload that are done with. */
static size_t take_payload(struct process* process, const uint8_t* bytes, size_t length) {
  struct frame_reader* reader = &process->reader;
  size_t piece = length < reader->left ? length : reader->left;
  size_t taken = piece;
  if (reader->type == MSB_STDIN) {
    taken = give_input(process, bytes, piece);
  } else if (!buffer_append(&process->start, bytes, piece)) {
    struct failure failure;
    fail(&failure, MSB_STAGE_RESOURCES, ENOMEM, "no memory for the request");
    refuse(process, &failure);
    return piece;
  }
  reader->left -= (uint32_t)taken;
  return taken;
}

/*
 * Acts on bytes from the host. Returns how many are done with; the rest has to wait for the process
 * to read. May end the connection.
 */
static size_t take(struct process* process, const uint8_t* bytes, size_t length) {
  struct frame_reader* reader = &process->reader;
  size_t taken = 0;
  while (taken < length && process->state <= RUNNING) {
    if (!frame_header_is_complete(reader)) {
      taken += frame_take_header(reader, bytes + taken, length - taken);
      if (!frame_header_is_complete(reader)) break;
      if (!begin_frame(process)) {
        abandon(process);
        break;
      }
    }
    size_t piece = length - taken < reader->left ? length - taken : reader->left;
    size_t done = take_payload(process, bytes + taken, piece);
    taken += done;
    if (done < piece) return taken;
    if (reader->left == 0 && process->state <= RUNNING) {
      frame_end(reader);
      if (reader->type == MSB_START) start(process);
    }
  }
  return process->state <= RUNNING ? taken : length;
}

static void receive(struct process* process) {
  ssize_t n = recv(process->connection.fd, scratch, sizeof scratch, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    abandon(process);
    return;
  }
  size_t taken = take(process, scratch, (size_t)n);
  if (!buffer_append(&process->received, scratch + taken, (size_t)n - taken)) abandon(process);
}

static void take_received(struct process* process) {
  struct buffer* received = &process->received;
  size_t length = buffer_length(received);
  if (length == 0) return;
  size_t taken = take(process, received->data + received->start, length);
  /* Empty now if the connection ended. */
  if (buffer_length(received) > 0) buffer_consume(received, taken);
}

static void send_unsent(struct process* process) {
  struct buffer* unsent = &process->unsent;
  while (buffer_length(unsent) > 0) {
    ssize_t n = send(process->connection.fd, unsent->data + unsent->start, buffer_length(unsent),
                     MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
      abandon(process);
      return;
    }
    buffer_consume(unsent, (size_t)n);
  }
  if (process->state == DRAINING) drain(process);
  if (process->state == ENDING && process->connection.fd >= 0) end(process);
}

/* Asks for just the events that can be acted upon in the state at hand. Called after everything
 * that changes it. */
static void settle(struct process* process) {
  if (process->connection.fd < 0) return;
  bool sending = buffer_length(&process->unsent) > 0;
  bool giving = buffer_length(&process->received) > 0;
  uint32_t connection = EPOLLRDHUP;
  if (process->state <= RUNNING && !giving) connection |= EPOLLIN;
  if (sending) connection |= EPOLLOUT;
  uint32_t output = process->state == RUNNING && !sending ? EPOLLIN : 0;
  bool watched = watch_set(&process->connection, connection) &&
                 watch_set(&process->input, giving ? EPOLLOUT : 0) &&
                 watch_set(&process->output, output) && watch_set(&process->error, output) &&
                 watch_set(&process->report, process->state == STARTING ? EPOLLHUP : 0);
  if (!watched) abandon(process);
}

static void on_connection(struct watch* watch, uint32_t events) {
  struct process* process = watch->owner;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    abandon(process);
    return;
  }
  if ((events & EPOLLOUT) != 0) send_unsent(process);
  if ((events & EPOLLIN) != 0 && process->connection.fd >= 0) receive(process);
  settle(process);
}

static void on_input(struct watch* watch, uint32_t events) {
  (void)events;
  struct process* process = watch->owner;
  take_received(process);
  settle(process);
}

static void on_output(struct watch* watch, uint32_t events) {
  (void)events;
  struct process* process = watch->owner;
  pass_on(process, watch, watch == &process->output ? MSB_STDOUT : MSB_STDERR, MSB_MAX_DATA);
  settle(process);
}

static void on_report(struct watch* watch, uint32_t events) {
  (void)events;
  struct process* process = watch->owner;
  started(process);
  settle(process);
}

bool processes_accept(struct processes* processes, int connection) {
  struct process* process = calloc(1, sizeof *process);
  if (process == NULL) {
    close(connection);
    return false;
  }
  process->all = processes;
  process->next = processes->first;
  if (process->next != NULL) process->next->previous = process;
  processes->first = process;
  watch_open(&process->connection, processes->epoll, connection, process, on_connection);
  watch_none(&process->input);
  watch_none(&process->output);
  watch_none(&process->error);
  watch_none(&process->report);
  settle(process);
  return true;
}

/* The log may name several victims, to be reaped one after another. */
static void mark_victims(struct processes* processes) {
  pid_t victim;
  while ((victim = oom_next_victim(processes->kmsg)) != 0) {
    for (struct process* process = processes->first; process != NULL; process = process->next) {
      if (process->pid == victim) process->killed_for_memory = true;
    }
  }
}

static struct process* find_by_pid(const struct processes* processes, pid_t pid) {
  struct process* process = processes->first;
  while (process != NULL && process->pid != pid) process = process->next;
  return process;
}

void processes_reaped(struct processes* processes, pid_t pid, int status) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) mark_victims(processes);
  struct process* process = find_by_pid(processes, pid);
  if (process == NULL) return;
  process->pid = 0;
  process->status = status;
  if (process->connection.fd < 0) {
    remove_process(process);
    return;
  }
  /* Its report has hung up by now, though the event may still be on its way. */
  if (process->state == STARTING) started(process);
  if (process->state == RUNNING) {
    /*
     * What is in the pipes now is all that the process wrote. Their end may never come: programs
     * that it left behind can hold them.
     */
    process->output_remaining = bytes_in(&process->output);
    process->error_remaining = bytes_in(&process->error);
    process->state = DRAINING;
    watch_close(&process->input);
    buffer_free(&process->received);
    drain(process);
  }
  settle(process);
}

void processes_signal(struct processes* processes, uint32_t id, uint32_t signal) {
  for (struct process* process = processes->first; process != NULL; process = process->next) {
    if (id == 0 || process->id != id || process->pid == 0) continue;
    kill(process->pid, (int)signal); /* its own pid: it has not been reaped */
    return;
  }
}

void processes_sweep(struct processes* processes) {
  while (processes->removed != NULL) {
    struct process* process = processes->removed;
    processes->removed = process->next;
    free(process);
  }
}

void processes_end(struct processes* processes) {
  while (processes->first != NULL) {
    struct process* process = processes->first;
    abandon(process);
    if (process->state != REMOVED) {
      process->pid = 0;
      remove_process(process);
    }
  }
  processes_sweep(processes);
}
