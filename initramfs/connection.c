/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "initramfs/file_service.h"
#include "initramfs/namespace.h"
#include "initramfs/process.h"
#include "initramfs/requests.h"
#include "initramfs/tunnel.h"

/* What is received at once, of all connections: only what cannot be acted upon has to be kept. */
static uint8_t scratch[FRAME_HEADER_SIZE + MSB_MAX_DATA];

static void on_socket(struct watch* watch, uint32_t events);

void connections_accept(struct connections* connections, int socket) {
  struct connection* connection = calloc(1, sizeof *connection);
  if (connection == NULL) {
    close(socket);
    return;
  }
  connection->all = connections;
  connection->next = connections->first;
  if (connection->next != NULL) connection->next->previous = connection;
  connections->first = connection;
  watch_open(&connection->socket, connections->epoll, socket, connection, on_socket);
  connection_settle(connection);
}

static void remove_connection(struct connection* connection) {
  if (connection->kind == CONNECTION_REMOVED) return;
  if (connection->previous != NULL) {
    connection->previous->next = connection->next;
  } else {
    connection->all->first = connection->next;
  }
  if (connection->next != NULL) connection->next->previous = connection->previous;
  connection->kind = CONNECTION_REMOVED;
  connection->next = connection->all->removed;
  connection->all->removed = connection;
  watch_close(&connection->socket);
  struct process* process = connection->process;
  connection->process = NULL;
  if (process != NULL) process_let_go(process);
}

static void free_connection(struct connection* connection) {
  buffer_free(&connection->payload);
  buffer_free(&connection->received);
  buffer_free(&connection->unsent);
  free(connection);
}

void connection_break(struct connection* connection) {
  connection->broken = true;
}

bool connection_is_idle(const struct connection* connection) {
  return !connection->broken && buffer_length(&connection->unsent) == 0;
}

size_t connection_write(struct connection* connection, const struct iovec* pieces, int count) {
  struct msghdr message = {.msg_iov = (struct iovec*)pieces};
  message.msg_iovlen = (__typeof__(message.msg_iovlen))count;
  ssize_t n;
  do {
    n = sendmsg(connection->socket.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return (size_t)n;
  if (errno != EAGAIN) connection_break(connection);
  return 0;
}

void connection_queue(struct connection* connection, const void* bytes, size_t length) {
  if (!buffer_append(&connection->unsent, bytes, length)) connection_break(connection);
}

void connection_flush(struct connection* connection) {
  struct buffer* unsent = &connection->unsent;
  while (buffer_length(unsent) > 0 && !connection->broken) {
    struct iovec rest = {.iov_base = unsent->data + unsent->start,
                         .iov_len = buffer_length(unsent)};
    size_t sent = connection_write(connection, &rest, 1);
    if (sent == 0) return;
    buffer_consume(unsent, sent);
  }
}

void connection_send(struct connection* connection, uint32_t type, const void* payload,
                     uint32_t length) {
  if (!frame_append(&connection->unsent, type, payload, length)) connection_break(connection);
  connection_flush(connection);
}

void connection_refuse(struct connection* connection, const struct failure* failure) {
  uint8_t payload[MSB_MAX_SMALL];
  connection_send(connection, MSB_REFUSED, payload, frame_failure(failure, payload));
}

void connection_end(struct connection* connection) {
  connection->kind = CONNECTION_ENDING;
  struct process* process = connection->process;
  connection->process = NULL;
  if (process != NULL) process_let_go(process);
}

/* Whether the frame whose header has come may come now. */
static bool begin_frame(struct connection* connection) {
  const struct frame_reader* reader = &connection->reader;
  if (!frame_is_acceptable(reader->type, reader->left)) return false;
  bool request = request_is(reader->type);
  const struct process* process = connection->process;
  switch (connection->kind) {
    case CONNECTION_UNDECIDED:
      if (request) connection->kind = CONNECTION_REQUESTS;
      return request || reader->type == MSB_START || reader->type == MSB_ATTACH ||
             reader->type == MSB_FILES || reader->type == MSB_CONNECT;
    case CONNECTION_REQUESTS:
      return request;
    default:
      if (reader->type == MSB_STDIN) {
        return (process->flags & MSB_START_NO_STDIN) == 0 && !process->inputs[PROCESS_STDIN].ended;
      }
      return reader->type == MSB_CHANNEL_INPUT && (process->flags & MSB_START_CHANNEL) != 0 &&
             !process->inputs[PROCESS_CHANNEL].ended;
  }
}

static bool is_input(const struct frame_reader* reader) {
  return reader->type == MSB_STDIN || reader->type == MSB_CHANNEL_INPUT;
}

static enum process_input input_of(const struct frame_reader* reader) {
  return reader->type == MSB_STDIN ? PROCESS_STDIN : PROCESS_CHANNEL;
}

/* Refuses what would have made the connection a process's. */
static void refuse_process(struct connection* connection, const struct failure* failure) {
  connection_refuse(connection, failure);
  connection_end(connection);
}

/* Returns the bytes of payload that are done with. */
static size_t take_payload(struct connection* connection, const uint8_t* bytes, size_t length) {
  struct frame_reader* reader = &connection->reader;
  size_t taken = length;
  if (is_input(reader)) {
    taken = process_give(connection->process, input_of(reader), bytes, length);
  } else if (!buffer_append(&connection->payload, bytes, length)) {
    struct failure failure;
    fail(&failure, MSB_STAGE_RESOURCES, ENOMEM, "no memory for the request");
    refuse_process(connection, &failure);
  }
  reader->left -= (uint32_t)taken;
  return taken;
}

static void start(struct connection* connection) {
  struct failure failure;
  connection->process =
      process_start(connection->all->processes, connection, &connection->payload, &failure);
  if (connection->process == NULL) {
    refuse_process(connection, &failure);
  } else {
    connection->kind = CONNECTION_PROCESS;
  }
}

static bool attach_to(struct connection* connection, const struct msb_attach* request,
                      struct failure* failure) {
  struct process* process = processes_find(connection->all->processes, request->process);
  if (process == NULL || (process->flags & MSB_START_KEEP) == 0) {
    return fail(failure, MSB_STAGE_PROCESS, ESRCH, "there is no process %u that is kept",
                request->process);
  }
  if (request->reserved != 0) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "ATTACH: the reserved field is not 0");
  }
  for (unsigned i = 0; i < MSB_STREAMS; i++) {
    if (request->offsets[i] == MSB_OFFSET_END) continue;
    if (request->offsets[i] > process->streams[i].end) {
      return fail(failure, MSB_STAGE_REQUEST, EINVAL,
                  "ATTACH: the process has not written that much into stream %u", i);
    }
  }
  connection->kind = CONNECTION_PROCESS;
  connection->process = process;
  process_attach(process, connection, request->offsets);
  return true;
}

static void attach(struct connection* connection, const uint8_t* payload) {
  struct msb_attach request;
  memcpy(&request, payload, sizeof request);
  struct failure failure;
  if (!attach_to(connection, &request, &failure)) refuse_process(connection, &failure);
}

/* The child belongs to the machine, like the agent, rather than to the programs. */
static void serve_files(struct connection* connection, const uint8_t* rest, size_t length) {
  bool restored;
  pid_t pid = namespace_fork_beside(connection->all->namespace_init, &restored);
  if (pid == 0) file_service_run(connection->socket.fd, rest, length);
  /* The agent is told of the init's death in this moment, and must start nothing beside it. */
  if (!restored) connection->all->processes->ending = true;
  if (pid < 0) {
    struct failure failure;
    fail(&failure, MSB_STAGE_RESOURCES, errno, "cannot make a process for the file service");
    refuse_process(connection, &failure);
    return;
  }
  connection->kind = CONNECTION_FILES;
  connection->file_service = pid;
  watch_close(&connection->socket);
}

static void open_tunnel(struct connection* connection, const uint8_t* rest, size_t length) {
  struct buffer* payload = &connection->payload;
  tunnel_open(connection->all->tunnels, watch_release(&connection->socket), buffer_bytes(payload),
              buffer_length(payload), rest, length);
  remove_connection(connection);
}

/*
 * A frame has come whole; behind it came `rest`. False when it has to be finished once more, after
 * the process has read something.
 */
static bool finish_frame(struct connection* connection, const uint8_t* rest, size_t length) {
  struct frame_reader* reader = &connection->reader;
  uint32_t payload_length = (uint32_t)buffer_length(&connection->payload);
  const uint8_t* payload = buffer_bytes(&connection->payload);
  switch (reader->type) {
    case MSB_STDIN:
    case MSB_CHANNEL_INPUT:
      /* The empty one ends the input. */
      if (frame_length(reader) == 0 && !process_end_input(connection->process, input_of(reader))) {
        return false;
      }
      break;
    case MSB_START:
      start(connection);
      break;
    case MSB_ATTACH:
      attach(connection, payload);
      break;
    case MSB_FILES:
      serve_files(connection, rest, length);
      break;
    case MSB_CONNECT:
      open_tunnel(connection, rest, length);
      break;
    default:
      request_answer(connection, reader->type, payload, payload_length);
  }
  buffer_free(&connection->payload);
  frame_end(reader);
  return true;
}

/* Whether bytes from the host can be acted upon. */
static bool accepts(const struct connection* connection) {
  if (connection->broken || connection->blocked) return false;
  switch (connection->kind) {
    case CONNECTION_UNDECIDED:
    case CONNECTION_PROCESS:
      return true;
    case CONNECTION_REQUESTS:
      return connection->waiting == 0 && buffer_length(&connection->unsent) == 0;
    default:
      return false;
  }
}

/*
 * Acts on bytes from the host. Returns how many are done with; the rest has to wait for the process
 * to read, or for the host to take answers.
 */
static size_t take(struct connection* connection, const uint8_t* bytes, size_t length) {
  struct frame_reader* reader = &connection->reader;
  size_t taken = 0;
  while (accepts(connection)) {
    if (!frame_header_is_complete(reader)) {
      if (taken == length) break;
      taken += frame_take_header(reader, bytes + taken, length - taken);
      if (!frame_header_is_complete(reader)) break;
      if (!begin_frame(connection)) {
        connection_break(connection);
        break;
      }
    }
    size_t piece = length - taken < reader->left ? length - taken : reader->left;
    size_t done = take_payload(connection, bytes + taken, piece);
    taken += done;
    if (done < piece) connection->blocked = true;
    if (reader->left > 0 || !accepts(connection)) break;
    if (!finish_frame(connection, bytes + taken, length - taken)) connection->blocked = true;
  }
  bool over = connection->broken || connection->kind > CONNECTION_REQUESTS;
  return over ? length : taken;
}

static void take_received(struct connection* connection) {
  struct buffer* received = &connection->received;
  size_t length = buffer_length(received);
  size_t taken = take(connection, buffer_bytes(received), length);
  if (length > 0) buffer_consume(received, taken);
}

static bool may_receive(const struct connection* connection) {
  return accepts(connection) && buffer_length(&connection->received) == 0;
}

static void receive(struct connection* connection) {
  ssize_t n = recv(connection->socket.fd, scratch, sizeof scratch, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    connection_break(connection);
    return;
  }
  size_t taken = take(connection, scratch, (size_t)n);
  if (!buffer_append(&connection->received, scratch + taken, (size_t)n - taken)) {
    connection_break(connection);
  }
}

void connection_resume(struct connection* connection) {
  if (!connection->blocked) return;
  connection->blocked = false;
  take_received(connection);
}

void connection_settle(struct connection* connection) {
  if (connection->process != NULL && !connection->broken) process_advance(connection->process);
  if (connection->kind == CONNECTION_REMOVED || connection->kind == CONNECTION_FILES) return;
  bool sent = buffer_length(&connection->unsent) == 0;
  if (connection->broken || (connection->kind == CONNECTION_ENDING && sent)) {
    remove_connection(connection);
    return;
  }
  uint32_t events = EPOLLRDHUP;
  if (may_receive(connection)) events |= EPOLLIN;
  if (!sent || (connection->process != NULL && process_has_unsent(connection->process))) {
    events |= EPOLLOUT;
  }
  if (!watch_set(&connection->socket, events)) remove_connection(connection);
}

static void on_socket(struct watch* watch, uint32_t events) {
  struct connection* connection = watch->owner;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    connection_break(connection);
  } else {
    if ((events & EPOLLOUT) != 0) connection_flush(connection);
    /* Requests that waited until the answers before them were sent. */
    if (connection->kind == CONNECTION_REQUESTS) take_received(connection);
    if ((events & EPOLLIN) != 0 && may_receive(connection)) receive(connection);
  }
  connection_settle(connection);
}

void connections_reaped(struct connections* connections, pid_t pid) {
  struct connection* connection = connections->first;
  for (; connection != NULL; connection = connection->next) {
    if (connection->kind == CONNECTION_FILES && connection->file_service == pid) {
      remove_connection(connection);
      return;
    }
  }
}

static void end_waits(struct connections* connections) {
  struct connection* next;
  for (struct connection* connection = connections->first; connection != NULL; connection = next) {
    next = connection->next;
    if (connection->waiting == 0) continue;
    request_end_wait(connection);
    if (connection->waiting == 0) {
      take_received(connection);
      connection_settle(connection);
    }
  }
}

void connections_sweep(struct connections* connections) {
  if (connections->processes->some_ended) {
    connections->processes->some_ended = false;
    end_waits(connections);
  }
  while (connections->removed != NULL) {
    struct connection* connection = connections->removed;
    connections->removed = connection->next;
    free_connection(connection);
  }
}

bool connections_are_behind(const struct connections* connections) {
  const struct connection* connection = connections->first;
  for (; connection != NULL; connection = connection->next) {
    if (connection->process != NULL || buffer_length(&connection->unsent) > 0) return true;
  }
  return false;
}

void connections_end(struct connections* connections) {
  while (connections->first != NULL) {
    struct connection* connection = connections->first;
    if (connection->kind == CONNECTION_FILES) kill(connection->file_service, SIGKILL);
    remove_connection(connection);
  }
  connections_sweep(connections);
}
