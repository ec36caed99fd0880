/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/requests.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "initramfs/machine_requests.h"
#include "initramfs/process.h"
#include "initramfs/terminal.h"

#define SIGNAL_MAX 64u

bool request_is(uint32_t type) {
  switch (type) {
    case MSB_SIGNAL:
    case MSB_RESIZE:
    case MSB_LIST:
    case MSB_WAIT:
    case MSB_FORGET:
      return true;
    default:
      return machine_request_is(type);
  }
}

static void send_done(struct connection* connection, uint64_t value) {
  struct msb_done done = {.value = value};
  connection_send(connection, MSB_DONE, &done, sizeof done);
}

static void refuse(struct connection* connection, uint32_t stage, int code, const char* why) {
  struct failure failure;
  fail(&failure, stage, 0, "%s", why);
  failure.code = (uint32_t)code;
  connection_refuse(connection, &failure);
}

static void refuse_unknown(struct connection* connection) {
  refuse(connection, MSB_STAGE_PROCESS, ESRCH, "there is no such process");
}

static void answer_signal(struct connection* connection, const uint8_t* payload) {
  struct msb_signal request;
  memcpy(&request, payload, sizeof request);
  if (request.signal == 0 || request.signal > SIGNAL_MAX ||
      (request.flags & ~MSB_SIGNAL_GROUP) != 0) {
    refuse(connection, MSB_STAGE_REQUEST, EINVAL, "SIGNAL: no such signal or flag");
    return;
  }
  const struct processes* processes = connection->all->processes;
  const struct process* process = processes_find(processes, request.process);
  /* One that is gone ended before the signal could come. */
  if (process == NULL && (request.process == 0 || request.process > processes->last_id)) {
    refuse_unknown(connection);
    return;
  }
  if (process != NULL && process->pid != 0) { /* not reaped: the number is its own */
    bool group = (request.flags & MSB_SIGNAL_GROUP) != 0;
    kill(group ? -process->pid : process->pid, (int)request.signal);
  }
  send_done(connection, 0);
}

static void answer_resize(struct connection* connection, const uint8_t* payload) {
  struct msb_resize request;
  memcpy(&request, payload, sizeof request);
  const struct process* process = processes_find(connection->all->processes, request.process);
  if (process == NULL) {
    refuse_unknown(connection);
  } else if ((process->flags & MSB_START_TERMINAL) == 0) {
    refuse(connection, MSB_STAGE_REQUEST, ENOTTY, "RESIZE: the process has no terminal");
  } else {
    /* One that has ended has no size any more. */
    if (process->input.fd >= 0) {
      terminal_resize(process->input.fd, request.rows, request.columns);
    }
    send_done(connection, 0);
  }
}

static bool is_listed(const struct process* process) {
  if (process->id == 0 || process->forgotten) return false;
  if (process->state == PROCESS_STATE_RUNNING || process->state == PROCESS_STATE_ABANDONED) {
    return true;
  }
  return (process->flags & MSB_START_KEEP) != 0;
}

static void answer_list(struct connection* connection) {
  uint64_t count = 0;
  const struct process* process = connection->all->processes->first;
  for (; process != NULL; process = process->next) {
    if (!is_listed(process)) continue;
    uint8_t payload[MSB_MAX_SMALL];
    connection_send(connection, MSB_PROCESS, payload, process_describe(process, payload));
    count++;
  }
  send_done(connection, count);
}

static void send_exited(struct connection* connection, const struct process* process) {
  uint8_t payload[MSB_MAX_SMALL];
  connection_send(connection, MSB_EXITED, payload, process_exited(process, payload));
}

static uint32_t take_id(const uint8_t* payload) {
  struct msb_process_id id;
  memcpy(&id, payload, sizeof id);
  return id.process;
}

static void answer_wait(struct connection* connection, const uint8_t* payload) {
  uint32_t id = take_id(payload);
  const struct process* process = processes_find(connection->all->processes, id);
  if (process == NULL) {
    refuse_unknown(connection);
  } else if ((process->flags & MSB_START_KEEP) == 0) {
    refuse(connection, MSB_STAGE_REQUEST, EINVAL, "WAIT: the process was not started with KEEP");
  } else {
    connection->waiting = id;
    request_end_wait(connection);
  }
}

void request_end_wait(struct connection* connection) {
  const struct process* process = processes_find(connection->all->processes, connection->waiting);
  if (process != NULL && !process_is_over(process)) return;
  connection->waiting = 0;
  if (process == NULL) {
    refuse_unknown(connection); /* forgotten meanwhile */
  } else {
    send_exited(connection, process);
  }
}

static void answer_forget(struct connection* connection, const uint8_t* payload) {
  struct process* process = processes_find(connection->all->processes, take_id(payload));
  if (process == NULL) {
    refuse_unknown(connection);
  } else if (process->pid != 0) {
    refuse(connection, MSB_STAGE_REQUEST, EBUSY,
           "FORGET: the process runs, and can be forgotten once it has ended");
  } else {
    process_forget(process);
    send_done(connection, 0);
  }
}

void request_answer(struct connection* connection, uint32_t type, const uint8_t* payload,
                    size_t length) {
  switch (type) {
    case MSB_SIGNAL:
      answer_signal(connection, payload);
      return;
    case MSB_RESIZE:
      answer_resize(connection, payload);
      return;
    case MSB_LIST:
      answer_list(connection);
      return;
    case MSB_WAIT:
      answer_wait(connection, payload);
      return;
    case MSB_FORGET:
      answer_forget(connection, payload);
      return;
    default: {
      struct namespace_beside programs = {.init = connection->all->namespace_init,
                                          .restored = true};
      if (!machine_request(type, payload, length, &programs, &connection->unsent)) {
        connection_break(connection);
      }
      /* The agent is told of the init's death in this moment, and must start nothing beside it. */
      if (!programs.restored) connection->all->processes->ending = true;
      connection_flush(connection);
    }
  }
}
