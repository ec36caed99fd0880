/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that the host started, from START to the end of what it wrote.
 *
 *   STARTING --runs--> RUNNING --reaped--> DRAINING --all read--> ENDED --all sent--> removed
 *      |                  |                   |                     |
 *      +--refused         +-------------------+---------------------+  its connection is lost, and
 *             |                               |                        it was not started with KEEP
 *             +--------> ABANDONED <----------+
 *                            |  reaped
 *                         removed
 *
 * With KEEP it goes its way without a connection, and from ENDED only FORGET removes it.
 *
 * What waits is bounded by what the process may keep of each stream: nothing more is read from its
 * pipes while a connection has not taken that, nor from a connection while the process does not
 * take its input.
 */
#ifndef MSB_INITRAMFS_PROCESS_H
#define MSB_INITRAMFS_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "initramfs/buffer.h"
#include "initramfs/oom.h"
#include "initramfs/start_request.h"
#include "initramfs/stream.h"
#include "initramfs/watch.h"
#include "protocol/msb_exec.h"

struct connection;

enum process_state {
  PROCESS_STATE_STARTING, /* forked; not known yet whether the program runs */
  PROCESS_STATE_RUNNING,
  PROCESS_STATE_DRAINING, /* reaped; what it had written is being read */
  PROCESS_STATE_ENDED,
  PROCESS_STATE_ABANDONED, /* nobody wants it any more; it has to be reaped */
  PROCESS_STATE_REMOVED
};

enum process_input { PROCESS_STDIN = 0, PROCESS_CHANNEL = 1 };
#define PROCESS_INPUTS 2
#define PROCESS_PIPES 2 /* standard output and error: the first two of enum msb_stream */

struct input {
  uint64_t taken; /* bytes given to the process, or dropped because it takes none */
  bool ended;     /* the empty frame has come */
  bool waiting;   /* its connection has something that the process did not take */
};

struct process {
  struct process* next;
  struct process* previous;
  struct processes* all;
  struct connection* connection; /* NULL while none has it */
  enum process_state state;
  uint32_t id; /* 0 until it runs */
  uint32_t guest_pid;
  pid_t pid; /* 0 once reaped */
  uint32_t flags;
  uint64_t started_ns;
  long deadline_ms;    /* of clock_now_ms(); 0 for none */
  uint64_t ended_rank; /* grows from one that ended to the next */
  bool forgotten;
  uint8_t* names; /* label and first argument, as PROCESS has them */
  uint32_t names_length;
  struct buffer start; /* the payload of START, while it is STARTING */
  struct start_request request;

  struct watch input; /* the descriptors, as named by the process */
  struct watch pipes[PROCESS_PIPES];
  struct watch channel;
  struct watch report;
  bool busy[PROCESS_PIPES]; /* was found full */
  int slave;                /* of its terminal, or -1 */

  struct input inputs[PROCESS_INPUTS];
  bool channel_read_ended;
  bool channel_write_ended;

  /* Bytes that have to be read from the pipes before `channel_ready` bytes of the channel are. */
  size_t owed[PROCESS_PIPES];
  size_t channel_ready;
  /* What has to be sent of the pipes' streams before the channel's bytes are. */
  uint64_t barrier[PROCESS_PIPES];
  struct stream streams[MSB_STREAMS];

  /* Towards the connection that has it. */
  uint64_t sent[MSB_STREAMS];
  unsigned frame_stream; /* the stream of a frame that was not sent whole */
  size_t frame_left;     /* bytes of it that were not; 0 for none */

  int status; /* wait(2)'s */
  struct rusage usage;
  bool timed_out;
  /* What the kernel said when it killed it for memory; empty otherwise. Not allocated, for there is
   * none at such times. */
  char memory_text[OOM_TEXT_MAX];
};

/* All processes of an agent. */
struct processes {
  int epoll;
  int kmsg;                /* where out-of-memory kills are read; -1 for none */
  bool ending;             /* none may be started any more */
  bool some_ended;         /* since this was last set to false */
  struct process* first;   /* doubly linked */
  struct process* removed; /* to be freed once no event can name them any more */
  uint32_t last_id;
  uint64_t last_rank;
};

/* process.c: its life. */

/*
 * Starts what the payload of START asks for, on behalf of `connection`. The payload becomes the
 * process's. NULL, and `failure`, when it is refused.
 */
struct process* process_start(struct processes* processes, struct connection* connection,
                              struct buffer* payload, struct failure* failure);

/* The process that the host may name by `id`; NULL when there is none, or not any more. */
struct process* processes_find(const struct processes* processes, uint32_t id);

/* Gives the process to a connection, which gets ATTACHED and what follows. The one that had it gets
 * DETACHED. */
void process_attach(struct process* process, struct connection* connection,
                    const uint64_t offsets[MSB_STREAMS]);

/* The connection that had the process is gone, or has got its last frame. */
void process_let_go(struct process* process);

/* Does what can be done in the state at hand, and asks for the events that lead on. To be called
 * after everything that changes it. */
void process_advance(struct process* process);

/* The same, together with its connection. */
void process_settle(struct process* process);

/* Kills it and its group. */
void process_kill(struct process* process);

/* The host is not interested any more; the process has ended. */
void process_forget(struct process* process);

/* A child of the agent was reaped. Does nothing when it is none of these processes. `status` and
 * `usage` are wait4(2)'s. */
void processes_reaped(struct processes* processes, pid_t pid, int status,
                      const struct rusage* usage);

/* The nearest moment of clock_now_ms() at which processes_expire() has something to do; -1 for
 * none. */
long processes_deadline(const struct processes* processes);

/* Kills those whose time is over. */
void processes_expire(struct processes* processes, long now_ms);

/* Starts nothing any more, and sends a signal to every process's group. */
void processes_shut_down(struct processes* processes, int signal);

/* Whether any process has not been reaped. */
bool processes_live(const struct processes* processes);

/* Removes what ended too long ago, and frees what was removed; to be called between rounds of
 * events. */
void processes_sweep(struct processes* processes);

/* Kills and frees everything. */
void processes_end(struct processes* processes);

/* process_status.c: what is said about it. */

/* Whether it has ended and what it wrote is known to the last byte. */
bool process_is_over(const struct process* process);

/* The payload of EXITED. Returns its length. */
uint32_t process_exited(const struct process* process, uint8_t payload[MSB_MAX_SMALL]);

/* The payload of PROCESS. Returns its length. */
uint32_t process_describe(const struct process* process, uint8_t payload[MSB_MAX_SMALL]);

/* process_streams.c: its descriptors. */

/* Takes the agent's ends of the descriptors of a new process. */
struct spawned;
void process_open_streams(struct process* process, const struct spawned* spawned);

/* Asks for just the events of the descriptors that can be acted upon. False when the kernel has no
 * memory. */
bool process_watch_streams(struct process* process);

/* Gives bytes to the process. Returns how many are done with; fewer than `length` when it must read
 * some first. */
size_t process_give(struct process* process, enum process_input input, const uint8_t* bytes,
                    size_t length);

/* The empty frame came. False when the process must read something first. */
bool process_end_input(struct process* process, enum process_input input);

/* Finds how much of what a process had written that was just reaped is still to be read. */
void process_begin_draining(struct process* process);

/* Reads what has to be read before something else can go on, as far as there is room. */
void process_pump(struct process* process);

/* Whether all of that was read. */
bool process_is_drained(const struct process* process);

void process_close_streams(struct process* process);

/* process_delivery.c: sending its streams to the connection that has it. */

/* Sends what is there, as far as the connection takes it, or long enough. */
void process_deliver(struct process* process);

/* Whether something is there that was not sent. */
bool process_has_unsent(const struct process* process);

/* How many bytes more may be read into a stream without the loss of one that was not sent. */
size_t process_room(const struct process* process, unsigned stream);

/* Sends the rest of a frame that was begun, without waiting, so that another one may follow. */
void process_finish_frame(struct process* process);

#endif
