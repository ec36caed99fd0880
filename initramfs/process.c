/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "initramfs/clock.h"
#include "initramfs/connection.h"
#include "initramfs/frames.h"
#include "initramfs/spawn.h"

/* What ended and was not forgotten. */
#define ENDED_MAX 64

/* Of the label and the first argument that LIST tells. */
#define NAME_MAX_BYTES 255u

static void on_report(struct watch* watch, uint32_t events);

static uint64_t boot_time_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void free_request(struct process* process) {
  buffer_free(&process->start);
  start_request_free(&process->request);
}

static void free_process(struct process* process) {
  free_request(process);
  for (int i = 0; i < (int)MSB_STREAMS; i++) stream_free(&process->streams[i]);
  free(process->names);
  free(process);
}

static void remove_process(struct process* process) {
  if (process->previous != NULL) {
    process->previous->next = process->next;
  } else {
    process->all->first = process->next;
  }
  if (process->next != NULL) process->next->previous = process->previous;
  process_close_streams(process);
  watch_close(&process->report);
  process->state = PROCESS_STATE_REMOVED;
  process->next = process->all->removed;
  process->all->removed = process;
}

/* It has not been reaped, so that its pid, and the process group of that number, are its own. */
void process_kill(struct process* process) {
  if (process->pid == 0) return;
  kill(-process->pid, SIGKILL);
  kill(process->pid, SIGKILL); /* it may not have come to its setsid() yet */
}

/* Nobody wants what it does or says any more. */
static void abandon(struct process* process) {
  process_kill(process);
  process_close_streams(process);
  watch_close(&process->report);
  free_request(process);
  for (int i = 0; i < (int)MSB_STREAMS; i++) stream_free(&process->streams[i]);
  process->deadline_ms = 0;
  process->state = PROCESS_STATE_ABANDONED;
  if (process->pid == 0) remove_process(process);
}

static bool set_names(struct process* process, const struct start_request* request) {
  size_t label = strnlen(request->label, NAME_MAX_BYTES);
  size_t argument = strnlen(request->arguments[0], NAME_MAX_BYTES);
  process->names_length = (uint32_t)(label + argument + 2);
  process->names = calloc(1, process->names_length);
  if (process->names == NULL) return false;
  memcpy(process->names, request->label, label);
  memcpy(process->names + label + 1, request->arguments[0], argument);
  return true;
}

static void set_up(struct process* process, struct processes* processes,
                   struct connection* connection) {
  process->all = processes;
  process->connection = connection;
  process->slave = -1;
  watch_none(&process->input);
  for (int i = 0; i < PROCESS_PIPES; i++) watch_none(&process->pipes[i]);
  watch_none(&process->channel);
  watch_none(&process->report);
}

static void set_from_request(struct process* process, const struct msb_start* start) {
  process->flags = start->flags;
  size_t capacity = STREAM_BLOCK;
  if ((start->flags & MSB_START_KEEP) != 0) {
    capacity = start->keep == 0 ? MSB_KEEP_DEFAULT : start->keep;
  }
  for (int i = 0; i < (int)MSB_STREAMS; i++) process->streams[i].capacity = capacity;
  if (start->timeout_ms > 0) process->deadline_ms = clock_now_ms() + (long)start->timeout_ms;
  process->started_ns = boot_time_ns();
}

static bool begin(struct process* process, struct spawned* spawned, struct failure* failure) {
  struct start_request* request = &process->request;
  if (!start_request_parse(process->start.data, buffer_length(&process->start), request, failure)) {
    return false;
  }
  if (process->all->ending) {
    return fail(failure, MSB_STAGE_REQUEST, ESHUTDOWN, "the machine is being shut down");
  }
  if (!set_names(process, request)) {
    return fail(failure, MSB_STAGE_RESOURCES, ENOMEM, "no memory for the process");
  }
  set_from_request(process, &request->fixed);
  return spawn(request, spawned, failure);
}

struct process* process_start(struct processes* processes, struct connection* connection,
                              struct buffer* payload, struct failure* failure) {
  struct process* process = calloc(1, sizeof *process);
  if (process == NULL) {
    fail(failure, MSB_STAGE_RESOURCES, ENOMEM, "no memory for the process");
    return NULL;
  }
  set_up(process, processes, connection);
  process->start = *payload;
  memset(payload, 0, sizeof *payload);
  struct spawned spawned;
  if (!begin(process, &spawned, failure)) {
    free_process(process);
    return NULL;
  }
  process->pid = spawned.pid;
  process_open_streams(process, &spawned);
  watch_open(&process->report, processes->epoll, spawned.report, process, on_report);
  process->next = processes->first;
  if (process->next != NULL) process->next->previous = process;
  processes->first = process;
  return process;
}

/* Its report hung up. */
static void started(struct process* process) {
  struct failure failure;
  bool runs = spawn_result(process->report.fd, &process->request, &process->guest_pid, &failure);
  watch_close(&process->report);
  struct connection* connection = process->connection;
  if (!runs) {
    process->connection = NULL;
    if (connection != NULL) {
      connection->process = NULL;
      connection_refuse(connection, &failure);
      connection_end(connection);
    }
    abandon(process);
    if (connection != NULL) connection_settle(connection);
    return;
  }
  free_request(process);
  process->id = ++process->all->last_id;
  process->state = PROCESS_STATE_RUNNING;
  if (connection == NULL) return;
  struct msb_started payload = {.process = process->id, .pid = process->guest_pid};
  connection_send(connection, MSB_STARTED, &payload, sizeof payload);
}

static void on_report(struct watch* watch, uint32_t events) {
  (void)events;
  struct process* process = watch->owner;
  started(process);
  process_settle(process);
}

struct process* processes_find(const struct processes* processes, uint32_t id) {
  for (struct process* process = processes->first; process != NULL; process = process->next) {
    if (id != 0 && process->id == id && !process->forgotten &&
        process->state != PROCESS_STATE_ABANDONED) {
      return process;
    }
  }
  return NULL;
}

static uint64_t offset_to_go_on(const struct stream* stream, uint64_t wanted) {
  if (wanted == MSB_OFFSET_END) return stream->end;
  return wanted > stream->first ? wanted : stream->first;
}

/* In the middle of a frame there is no place for another one. */
static void detach(struct process* process) {
  struct connection* connection = process->connection;
  if (process->frame_left > 0) process_finish_frame(process);
  connection_send(connection, MSB_DETACHED, NULL, 0);
  connection->process = NULL;
  process->connection = NULL;
  connection_end(connection);
  connection_settle(connection);
}

void process_attach(struct process* process, struct connection* connection,
                    const uint64_t offsets[MSB_STREAMS]) {
  if (process->connection != NULL) detach(process);
  process->connection = connection;
  process->frame_left = 0;
  const struct input* inputs = process->inputs;
  struct msb_attached attached = {.process = process->id,
                                  .pid = process->guest_pid,
                                  .input = inputs[PROCESS_STDIN].taken,
                                  .channel_input = inputs[PROCESS_CHANNEL].taken};
  if (inputs[PROCESS_STDIN].ended) attached.flags |= MSB_ATTACHED_INPUT_ENDED;
  if (inputs[PROCESS_CHANNEL].ended) attached.flags |= MSB_ATTACHED_CHANNEL_ENDED;
  if ((process->flags & MSB_START_TERMINAL) != 0) attached.flags |= MSB_ATTACHED_TERMINAL;
  if ((process->flags & MSB_START_NO_STDIN) == 0) attached.flags |= MSB_ATTACHED_INPUT;
  for (int i = 0; i < (int)MSB_STREAMS; i++) {
    process->sent[i] = offset_to_go_on(&process->streams[i], offsets[i]);
    attached.offsets[i] = process->sent[i];
  }
  /* All that is kept of the pipes may have been written before what is kept of the channel. */
  for (int i = 0; i < PROCESS_PIPES; i++) process->barrier[i] = process->streams[i].end;
  connection_send(connection, MSB_ATTACHED, &attached, sizeof attached);
}

static bool is_kept(const struct process* process) {
  return (process->flags & MSB_START_KEEP) != 0 && !process->forgotten;
}

void process_let_go(struct process* process) {
  process->connection = NULL;
  process->frame_left = 0;
  for (int i = 0; i < PROCESS_INPUTS; i++) process->inputs[i].waiting = false;
  if (process->state == PROCESS_STATE_ABANDONED || process->state == PROCESS_STATE_REMOVED) return;
  if (is_kept(process)) {
    process_advance(process);
  } else {
    abandon(process);
  }
}

/* What it wrote is all read. */
static void finish(struct process* process) {
  process_close_streams(process);
  process->state = PROCESS_STATE_ENDED;
  process->ended_rank = ++process->all->last_rank;
  process->all->some_ended = true;
}

/* Without memory in the kernel to watch its streams, it would stand still for ever. */
static void give_up(struct process* process) {
  if (process->connection != NULL) {
    connection_break(process->connection);
  } else {
    process_kill(process);
  }
}

void process_advance(struct process* process) {
  if (process->state == PROCESS_STATE_ABANDONED || process->state == PROCESS_STATE_REMOVED) return;
  bool attached = process->connection != NULL && process->state != PROCESS_STATE_STARTING;
  process_pump(process);
  if (attached) {
    /* What is sent makes room for what is still to be read. */
    process_deliver(process);
    process_pump(process);
    process_deliver(process);
  }
  if (process->state == PROCESS_STATE_DRAINING && process_is_drained(process)) finish(process);
  if (!process_watch_streams(process) ||
      !watch_set(&process->report, process->state == PROCESS_STATE_STARTING ? EPOLLHUP : 0)) {
    give_up(process);
  }
  if (attached && process->state == PROCESS_STATE_ENDED && !process_has_unsent(process) &&
      process->frame_left == 0) {
    uint8_t payload[MSB_MAX_SMALL];
    uint32_t length = process_exited(process, payload);
    connection_send(process->connection, MSB_EXITED, payload, length);
    connection_end(process->connection);
  }
}

void process_settle(struct process* process) {
  if (process->connection != NULL) {
    connection_settle(process->connection);
  } else {
    process_advance(process);
  }
}

void process_forget(struct process* process) {
  process->forgotten = true;
  process->all->some_ended = true;
  if (process->connection == NULL) abandon(process);
}

/* The log may name several victims, to be reaped one after another. */
static void mark_victims(struct processes* processes) {
  pid_t victim;
  char text[OOM_TEXT_MAX];
  while ((victim = oom_next_victim(processes->kmsg, text)) != 0) {
    for (struct process* process = processes->first; process != NULL; process = process->next) {
      if (process->pid == victim && process->memory_text[0] == '\0') {
        memcpy(process->memory_text, text, sizeof text);
      }
    }
  }
}

static struct process* find_by_pid(const struct processes* processes, pid_t pid) {
  struct process* process = processes->first;
  while (process != NULL && process->pid != pid) process = process->next;
  return process;
}

void processes_reaped(struct processes* processes, pid_t pid, int status,
                      const struct rusage* usage) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) mark_victims(processes);
  struct process* process = find_by_pid(processes, pid);
  if (process == NULL) return;
  process->pid = 0;
  process->status = status;
  process->usage = *usage;
  process->deadline_ms = 0;
  if (process->state == PROCESS_STATE_ABANDONED) {
    remove_process(process);
    return;
  }
  /* Its report has hung up by now, though the event may still be on its way. */
  if (process->state == PROCESS_STATE_STARTING) started(process);
  if (process->state == PROCESS_STATE_RUNNING) {
    /*
     * What is in the pipes now is all that the process wrote. Their end may never come: programs
     * that it left behind can hold them.
     */
    process->state = PROCESS_STATE_DRAINING;
    process_begin_draining(process);
    processes->some_ended = true;
    /* What it did not read is dropped, and what comes is too: the host may have to write it all
     * before it reads. */
    if (process->connection != NULL) connection_resume(process->connection);
  }
  if (process->state != PROCESS_STATE_REMOVED) process_settle(process);
}

long processes_deadline(const struct processes* processes) {
  long nearest = -1;
  for (const struct process* process = processes->first; process != NULL; process = process->next) {
    if (process->deadline_ms != 0 && (nearest < 0 || process->deadline_ms < nearest)) {
      nearest = process->deadline_ms;
    }
  }
  return nearest;
}

void processes_expire(struct processes* processes, long now_ms) {
  for (struct process* process = processes->first; process != NULL; process = process->next) {
    if (process->deadline_ms == 0 || process->deadline_ms > now_ms) continue;
    process->deadline_ms = 0;
    process->timed_out = true;
    process_kill(process);
  }
}

void processes_shut_down(struct processes* processes, int signal) {
  processes->ending = true;
  for (struct process* process = processes->first; process != NULL; process = process->next) {
    if (process->pid == 0) continue;
    kill(-process->pid, signal);
    if (process->state == PROCESS_STATE_STARTING) kill(process->pid, signal);
  }
}

bool processes_live(const struct processes* processes) {
  for (const struct process* process = processes->first; process != NULL; process = process->next) {
    if (process->pid != 0) return true;
  }
  return false;
}

/* The one that ended first, when there are too many. */
static struct process* find_surplus(const struct processes* processes) {
  int count = 0;
  struct process* oldest = NULL;
  for (struct process* process = processes->first; process != NULL; process = process->next) {
    if (process->state != PROCESS_STATE_ENDED || process->connection != NULL) continue;
    count++;
    if (oldest == NULL || process->ended_rank < oldest->ended_rank) oldest = process;
  }
  return count > ENDED_MAX ? oldest : NULL;
}

void processes_sweep(struct processes* processes) {
  struct process* surplus;
  while ((surplus = find_surplus(processes)) != NULL) abandon(surplus);
  while (processes->removed != NULL) {
    struct process* process = processes->removed;
    processes->removed = process->next;
    free_process(process);
  }
}

void processes_end(struct processes* processes) {
  while (processes->first != NULL) {
    struct process* process = processes->first;
    process_kill(process);
    process->pid = 0;
    abandon(process);
  }
  processes_sweep(processes);
}
