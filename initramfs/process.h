/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process connection and the process that it started.
 *
 *   WAITING --START--> STARTING --runs--> RUNNING --reaped--> DRAINING --all sent--> ENDING
 * --sent--> gone
 *                         |
 *                         +--refused--------------------------------------------------^
 *
 * From every state, a host that vanishes or breaks the protocol leads to the end at once: the
 * connection is closed, the process group killed, and the rest is gone when the process has been
 * reaped.
 *
 * What waits for a slow reader is bounded by one frame in each direction: nothing more is read from
 * the pipes while the host does not take output, nor from the connection while the process does not
 * take input.
 */
#ifndef MSB_INITRAMFS_PROCESS_H
#define MSB_INITRAMFS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct process;

/* All process connections of an agent. */
struct processes {
  int epoll;
  int kmsg;                /* where out-of-memory kills are read; -1 for none */
  struct process* first;   /* doubly linked */
  struct process* removed; /* to be freed once no event can name them any more */
  uint32_t last_id;
};

/* Takes a new connection. False, and the connection is closed, without memory for it. */
bool processes_accept(struct processes* processes, int connection);

/* A child of the agent was reaped. Does nothing when it is none of these processes. `status` is
 * wait(2)'s. */
void processes_reaped(struct processes* processes, pid_t pid, int status);

/* Sends a signal to the process itself. Does nothing when it has ended: that is a race that any
 * host loses at times. */
void processes_signal(struct processes* processes, uint32_t id, uint32_t signal);

/* Frees what was removed; to be called between rounds of events. */
void processes_sweep(struct processes* processes);

/* Kills and frees everything. */
void processes_end(struct processes* processes);

#endif
