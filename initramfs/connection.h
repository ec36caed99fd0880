/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent connection (docs/exec-protocol.md): its frames, and what its first one makes it.
 *
 *   UNDECIDED --START, ATTACH--> PROCESS ----------+--> ENDING --all sent--> removed
 *       |                                          |
 *       +------any other request--> REQUESTS       |
 *       +------FILES--> FILES --reaped--> removed  |
 *       +------CONNECT--> removed, the tunnel's    |
 *       +------refused-----------------------------+
 *
 * From every state, a host that vanishes or breaks the protocol leads to removed at once. What
 * waits on a connection is bounded: nothing more is read from it while the process does not take
 * its input, or while the host does not take its answers.
 */
#ifndef MSB_INITRAMFS_CONNECTION_H
#define MSB_INITRAMFS_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "initramfs/buffer.h"
#include "initramfs/failure.h"
#include "initramfs/frames.h"
#include "initramfs/watch.h"

struct process;
struct processes;
struct tunnels;

enum connection_kind {
  CONNECTION_UNDECIDED,
  CONNECTION_PROCESS,
  CONNECTION_REQUESTS,
  CONNECTION_FILES,  /* a child has it */
  CONNECTION_ENDING, /* the last frame is being sent */
  CONNECTION_REMOVED
};

struct connection {
  struct connection* next;
  struct connection* previous;
  struct connections* all;
  enum connection_kind kind;
  struct watch socket;
  struct frame_reader reader;
  struct buffer payload;   /* of a frame that has to come whole */
  struct buffer received;  /* what could not be acted upon yet */
  struct buffer unsent;    /* what the host did not take yet */
  struct process* process; /* while it has one */
  uint32_t waiting;        /* WAIT: the process that has to end; 0 for none */
  pid_t file_service;
  bool blocked; /* until the process takes input */
  bool broken;  /* lost, or the protocol was; to be closed */
};

/* All connections of an agent. */
struct connections {
  int epoll;
  pid_t namespace_init;       /* -1 for none */
  struct connection* first;   /* doubly linked */
  struct connection* removed; /* to be freed once no event can name them any more */
  struct processes* processes;
  struct tunnels* tunnels;
};

/* Takes a new connection; closes it when there is no memory for it. */
void connections_accept(struct connections* connections, int socket);

/* A child of the agent was reaped. Does nothing when it is no file service. */
void connections_reaped(struct connections* connections, pid_t pid);

/* Answers WAITs, and frees what was removed; to be called between rounds of events, before
 * processes_sweep(). */
void connections_sweep(struct connections* connections);

/* Whether a host has not been sent all of what a process wrote, or how it ended. */
bool connections_are_behind(const struct connections* connections);

/* Kills the file services, closes and frees everything. */
void connections_end(struct connections* connections);

/* Nothing is on its way, and there may be more. */
bool connection_is_idle(const struct connection* connection);

/* Sends what the host takes at once, to an idle connection. Returns how many bytes that was. */
size_t connection_write(struct connection* connection, const struct iovec* pieces, int count);

/* Adds bytes to what is to be sent. */
void connection_queue(struct connection* connection, const void* bytes, size_t length);

/* Sends what the host takes at once of what was added. */
void connection_flush(struct connection* connection);

/* Sends a frame, at once as far as the host takes it. */
void connection_send(struct connection* connection, uint32_t type, const void* payload,
                     uint32_t length);

/* Answers REFUSED. */
void connection_refuse(struct connection* connection, const struct failure* failure);

/* Lets go of the process; closed once all is sent. */
void connection_end(struct connection* connection);

/* Closed when it is settled next. */
void connection_break(struct connection* connection);

/* The process takes input again. */
void connection_resume(struct connection* connection);

/* Does what can be done, together with its process, and asks for the events that lead on. To be
 * called after everything that changes it. */
void connection_settle(struct connection* connection);

#endif
