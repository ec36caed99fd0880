/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/agent.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "initramfs/clock.h"
#include "initramfs/connection.h"
#include "initramfs/forwards.h"
#include "initramfs/frames.h"
#include "initramfs/namespace.h"
#include "initramfs/process.h"
#include "initramfs/tunnel.h"
#include "initramfs/watch.h"

#define EVENTS_PER_ROUND 64

/* How long accepting rests when the guest is out of descriptors or memory. */
#define REST_MS 100

/* Of SHUTDOWN, as docs/exec-protocol.md has it. */
#define SHUTDOWN_SIGNAL_MAX 64u
#define SHUTDOWN_GRACE_MAX_MS 600000u

struct agent {
  const struct agent_options* options;
  struct failure* failure;
  int epoll;
  struct processes processes;
  struct tunnels tunnels;
  struct connections connections;
  struct watch children;
  struct watch control;
  struct watch listener;
  struct frame_reader reader; /* of the control connection */
  uint8_t payload[MSB_MAX_SMALL];
  uint32_t payload_filled;
  long grace_ends_ms; /* of clock_now_ms(); 0 while nobody asked for the end */
  bool ended;
  enum msb_bye_reason reason;
};

static void on_children(struct watch* watch, uint32_t events);
static void on_control(struct watch* watch, uint32_t events);
static void on_listener(struct watch* watch, uint32_t events);

/* The first reason counts. */
static void end(struct agent* agent, enum msb_bye_reason reason) {
  if (agent->ended) return;
  agent->ended = true;
  agent->reason = reason;
}

static bool begin(struct agent* agent) {
  const struct agent_options* options = agent->options;
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) {
    return fail(agent->failure, MSB_STAGE_RESOURCES, errno, "cannot make an epoll instance");
  }
  agent->epoll = epoll;
  agent->processes.epoll = epoll;
  agent->processes.kmsg = options->kmsg;
  agent->tunnels.epoll = epoll;
  agent->tunnels.flows.epoll = epoll;
  agent->tunnels.card = options->card;
  agent->connections.epoll = epoll;
  agent->connections.namespace_init = options->namespace_init;
  agent->connections.processes = &agent->processes;
  agent->connections.tunnels = &agent->tunnels;
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  int children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (children < 0)
    return fail(agent->failure, MSB_STAGE_RESOURCES, errno, "cannot make a signalfd");
  watch_open(&agent->children, epoll, children, agent, on_children);
  watch_open(&agent->control, epoll, options->control, agent, on_control);
  watch_open(&agent->listener, epoll, options->listener, agent, on_listener);
  if (!watch_set(&agent->children, EPOLLIN) || !watch_set(&agent->control, EPOLLIN) ||
      !watch_set(&agent->listener, EPOLLIN) ||
      (options->forwards != NULL && !forwards_begin(options->forwards, epoll, &agent->tunnels))) {
    return fail(agent->failure, MSB_STAGE_RESOURCES, errno, "cannot watch a descriptor");
  }
  return true;
}

static long nearer(long deadline_ms, long other_ms) {
  return deadline_ms < 0 || other_ms < deadline_ms ? other_ms : deadline_ms;
}

/* For epoll_wait(2): how long until something is to be done that no descriptor tells of. */
static int wait_ms(const struct agent* agent, bool resting) {
  const struct forwards* forwards = agent->options->forwards;
  long now = clock_now_ms();
  long deadline = processes_deadline(&agent->processes);
  long idle = forwards == NULL ? -1 : flows_deadline(&forwards->flows);
  if (idle >= 0) deadline = nearer(deadline, idle);
  if (agent->grace_ends_ms != 0) deadline = nearer(deadline, agent->grace_ends_ms);
  if (resting) deadline = nearer(deadline, now + REST_MS);
  if (deadline < 0) return -1;
  long left = deadline - now;
  if (left <= 0) return 0;
  return left < INT_MAX ? (int)left : INT_MAX;
}

/* What time or the deaths of the round bring. */
static void look_at_clock(struct agent* agent) {
  long now = clock_now_ms();
  processes_expire(&agent->processes, now);
  if (agent->grace_ends_ms == 0) return;
  bool over = !processes_live(&agent->processes) && !connections_are_behind(&agent->connections);
  if (over || now >= agent->grace_ends_ms) end(agent, MSB_BYE_REQUESTED);
}

static void run_round(struct agent* agent) {
  struct epoll_event events[EVENTS_PER_ROUND];
  struct forwards* forwards = agent->options->forwards;
  bool listener_rests = agent->listener.events == 0;
  bool forwards_rest = forwards != NULL && forwards->resting;
  bool resting = listener_rests || forwards_rest;
  int count = epoll_wait(agent->epoll, events, EVENTS_PER_ROUND, wait_ms(agent, resting));
  /* Who ends it leaves the rest to namespace_end(), which tells whether it was a reboot(2). */
  for (int i = 0; i < count && !agent->ended; i++) {
    struct watch* watch = events[i].data.ptr;
    /* An earlier event of this round may have changed what this one is watched for, or closed it.
     */
    uint32_t current = events[i].events & (watch->events | EPOLLHUP | EPOLLERR);
    if (watch->events != 0 && current != 0) watch->ready(watch, current);
  }
  look_at_clock(agent);
  connections_sweep(&agent->connections);
  processes_sweep(&agent->processes);
  tunnels_sweep(&agent->tunnels);
  if (forwards != NULL) forwards_sweep(forwards, clock_now_ms(), forwards_rest);
  if (listener_rests) watch_set(&agent->listener, EPOLLIN);
}

static void finish(struct agent* agent) {
  /* Connections first: they name their processes. */
  connections_end(&agent->connections);
  processes_end(&agent->processes);
  tunnels_end(&agent->tunnels);
  if (agent->options->forwards != NULL) forwards_end(agent->options->forwards);
  watch_close(&agent->children);
  if (agent->epoll >= 0) close(agent->epoll);
}

enum msb_bye_reason agent_run(const struct agent_options* options, struct failure* failure) {
  static struct agent agent;
  memset(&agent, 0, sizeof agent);
  agent.options = options;
  agent.failure = failure;
  agent.epoll = -1;
  watch_none(&agent.children);
  watch_none(&agent.control);
  watch_none(&agent.listener);
  if (!begin(&agent)) end(&agent, MSB_BYE_FAILED);
  while (!agent.ended) run_round(&agent);
  finish(&agent);
  return agent.reason;
}

static void namespace_died(struct agent* agent, int status) {
  enum msb_bye_reason reason = namespace_death(status);
  if (reason == MSB_BYE_FAILED) {
    fail(agent->failure, MSB_STAGE_RESOURCES, 0,
         "the init of the process namespace died, and all processes with it (wait status 0x%x)",
         (unsigned)status);
  }
  end(agent, reason);
}

static void on_children(struct watch* watch, uint32_t events) {
  (void)events;
  struct agent* agent = watch->owner;
  struct signalfd_siginfo info;
  while (read(watch->fd, &info, sizeof info) > 0) continue;
  /* One SIGCHLD may stand for many deaths. */
  int status;
  struct rusage usage;
  pid_t pid;
  while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
    if (pid == agent->options->namespace_init) {
      namespace_died(agent, status);
    } else {
      connections_reaped(&agent->connections, pid);
      processes_reaped(&agent->processes, pid, status, &usage);
    }
  }
}

/* False when the frame says what it may not. */
static bool take_control_frame(struct agent* agent) {
  struct msb_shutdown request;
  memcpy(&request, agent->payload, sizeof request);
  if (request.signal > SHUTDOWN_SIGNAL_MAX || request.grace_ms > SHUTDOWN_GRACE_MAX_MS) {
    return false;
  }
  if (request.signal == 0 || request.grace_ms == 0) {
    end(agent, MSB_BYE_REQUESTED);
    return true;
  }
  processes_shut_down(&agent->processes, (int)request.signal);
  agent->grace_ends_ms = clock_now_ms() + (long)request.grace_ms;
  return true;
}

static void fail_control(struct agent* agent) {
  fail(agent->failure, MSB_STAGE_REQUEST, EPROTO,
       "control connection: a frame of type %u with %u bytes", agent->reader.type,
       frame_length(&agent->reader));
  end(agent, MSB_BYE_FAILED);
}

static void take_control(struct agent* agent, const uint8_t* bytes, size_t length) {
  struct frame_reader* reader = &agent->reader;
  size_t taken = 0;
  while (taken < length && !agent->ended) {
    if (!frame_header_is_complete(reader)) {
      taken += frame_take_header(reader, bytes + taken, length - taken);
      if (!frame_header_is_complete(reader)) return;
      if (reader->type != MSB_SHUTDOWN || !frame_is_acceptable(reader->type, reader->left)) {
        fail_control(agent);
        return;
      }
      agent->payload_filled = 0;
    }
    size_t piece = length - taken < reader->left ? length - taken : reader->left;
    memcpy(agent->payload + agent->payload_filled, bytes + taken, piece);
    agent->payload_filled += (uint32_t)piece;
    reader->left -= (uint32_t)piece;
    taken += piece;
    if (reader->left == 0) {
      if (!take_control_frame(agent)) fail_control(agent);
      frame_end(reader);
    }
  }
}

/* A host that closes the control connection asks for the end without waiting for it. */
static void on_control(struct watch* watch, uint32_t events) {
  (void)events;
  struct agent* agent = watch->owner;
  uint8_t bytes[MSB_MAX_SMALL];
  ssize_t n = recv(watch->fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    end(agent, MSB_BYE_REQUESTED);
    return;
  }
  take_control(agent, bytes, (size_t)n);
}

static void on_listener(struct watch* watch, uint32_t events) {
  (void)events;
  struct agent* agent = watch->owner;
  struct sockaddr_storage peer;
  socklen_t length = sizeof peer;
  int connection = accept4(watch->fd, (struct sockaddr*)&peer, &length, SOCK_CLOEXEC);
  if (connection < 0) {
    /* Out of descriptors or memory: the listener would stay readable and keep the loop spinning. */
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      watch_set(watch, 0);
    }
    return;
  }
  if (agent->options->is_host != NULL &&
      !agent->options->is_host((const struct sockaddr*)&peer, length)) {
    close(connection);
    return;
  }
  connections_accept(&agent->connections, connection);
}
