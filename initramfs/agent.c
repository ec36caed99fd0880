/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/agent.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "initramfs/frames.h"
#include "initramfs/namespace.h"
#include "initramfs/process.h"
#include "initramfs/watch.h"

#define EVENTS_PER_ROUND 64

/* How long accepting rests when the guest is out of descriptors or memory. */
#define REST_MS 100

struct agent {
  const struct agent_options* options;
  struct failure* failure;
  struct processes processes;
  struct watch children;
  struct watch control;
  struct watch listener;
  struct frame_reader reader; /* of the control connection */
  uint8_t payload[MSB_MAX_SMALL];
  uint32_t payload_filled;
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
  agent->processes.epoll = epoll;
  agent->processes.kmsg = options->kmsg;
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
      !watch_set(&agent->listener, EPOLLIN)) {
    return fail(agent->failure, MSB_STAGE_RESOURCES, errno, "cannot watch a descriptor");
  }
  return true;
}

static void run_round(struct agent* agent) {
  struct epoll_event events[EVENTS_PER_ROUND];
  bool resting = agent->listener.events == 0;
  int count = epoll_wait(agent->processes.epoll, events, EVENTS_PER_ROUND, resting ? REST_MS : -1);
  for (int i = 0; i < count; i++) {
    struct watch* watch = events[i].data.ptr;
    /* An earlier event of this round may have changed what this one is watched for, or closed it.
     */
    uint32_t current = events[i].events & (watch->events | EPOLLHUP | EPOLLERR);
    if (watch->events != 0 && current != 0) watch->ready(watch, current);
  }
  processes_sweep(&agent->processes);
  if (resting) watch_set(&agent->listener, EPOLLIN);
}

static void finish(struct agent* agent) {
  processes_end(&agent->processes);
  watch_close(&agent->children);
  if (agent->processes.epoll >= 0) close(agent->processes.epoll);
}

enum msb_bye_reason agent_run(const struct agent_options* options, struct failure* failure) {
  static struct agent agent;
  memset(&agent, 0, sizeof agent);
  agent.options = options;
  agent.failure = failure;
  agent.processes.epoll = -1;
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
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    if (pid == agent->options->namespace_init) {
      namespace_died(agent, status);
    } else {
      processes_reaped(&agent->processes, pid, status);
    }
  }
}

static void take_control_frame(struct agent* agent) {
  if (agent->reader.type == MSB_SHUTDOWN) {
    end(agent, MSB_BYE_REQUESTED);
    return;
  }
  struct msb_signal signal;
  memcpy(&signal, agent->payload, sizeof signal);
  processes_signal(&agent->processes, signal.process, signal.signal);
}

static bool is_control_frame(const struct frame_reader* reader) {
  return (reader->type == MSB_SIGNAL || reader->type == MSB_SHUTDOWN) &&
         frame_is_acceptable(reader->type, reader->left);
}

static void take_control(struct agent* agent, const uint8_t* bytes, size_t length) {
  struct frame_reader* reader = &agent->reader;
  size_t taken = 0;
  while (taken < length && !agent->ended) {
    if (!frame_header_is_complete(reader)) {
      taken += frame_take_header(reader, bytes + taken, length - taken);
      if (!frame_header_is_complete(reader)) return;
      if (!is_control_frame(reader)) {
        fail(agent->failure, MSB_STAGE_REQUEST, EPROTO,
             "control connection: a frame of type %u with %u bytes", reader->type, reader->left);
        end(agent, MSB_BYE_FAILED);
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
      frame_end(reader);
      take_control_frame(agent);
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
  processes_accept(&agent->processes, connection);
}
