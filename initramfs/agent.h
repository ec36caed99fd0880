/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: one loop over the control connection, the agent connections, the processes, and the
 * death of children. It knows neither vsock nor mounts nor that it is PID 1, and is tested on the
 * host with Unix sockets.
 */
#ifndef MSB_INITRAMFS_AGENT_H
#define MSB_INITRAMFS_AGENT_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "initramfs/failure.h"
#include "protocol/msb_exec.h"

struct boot_card;
struct forwards;

struct agent_options {
  int control;  /* connected; stays the caller's */
  int listener; /* where agent connections come in, non-blocking; stays the caller's */
  int kmsg;     /* where out-of-memory kills are read; -1 for none */
  /* Whether a peer may connect. NULL: everyone may. */
  bool (*is_host)(const struct sockaddr* peer, socklen_t length);
  /* The init of the namespace that processes run in; -1 for none. Its death ends the loop. */
  pid_t namespace_init;
  const struct boot_card* card; /* whose addresses CONNECT tries too; NULL for none */
  struct forwards* forwards;    /* opened; NULL for none. Closed at the end */
};

/*
 * Runs until the machine has to end, and returns why. Every agent connection is closed then, and
 * every process killed. MSB_BYE_FAILED comes with `failure` filled in. The caller must have blocked
 * SIGCHLD and SIGPIPE.
 */
enum msb_bye_reason agent_run(const struct agent_options* options, struct failure* failure);

#endif
