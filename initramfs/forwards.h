/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forwards of the boot file: what programs send to an address of the loopback network goes to a
 * vsock port of the host. TCP connections become tunnels, senders of datagrams flows.
 */
#ifndef MSB_INITRAMFS_FORWARDS_H
#define MSB_INITRAMFS_FORWARDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/boot_network.h"
#include "initramfs/failure.h"
#include "initramfs/flow.h"
#include "initramfs/watch.h"

struct tunnels;
struct forwards;

/* TCP connections at a time, of all forwards together: more are not accepted before one ends. */
#define FORWARD_CONNECTIONS_MAX 512u

struct forward {
  struct watch socket;
  struct forwards* all;
  const struct boot_forward* said;
};

struct forwards {
  size_t count;
  struct forward entries[BOOT_FORWARDS_MAX];
  int (*connect)(uint32_t port);
  struct tunnels* tunnels;
  struct flows flows;   /* of senders of datagrams */
  uint32_t connections; /* that are forwarded */
  bool paused;          /* nothing is accepted */
  bool resting;         /* because the guest is out of descriptors or memory */
};

/*
 * Opens the sockets; programs can connect from now on, and are served once the agent runs.
 * `connect` begins a connection to a vsock port of the host: a non-blocking descriptor, or -1 and
 * errno. `network` has to stay. Fails with MSB_STAGE_BOOT.
 */
bool forwards_open(struct forwards* forwards, const struct boot_network* network,
                   int (*connect)(uint32_t port), struct failure* failure);

/* Begins to serve. False when the kernel has no memory. */
bool forwards_begin(struct forwards* forwards, int epoll, struct tunnels* tunnels);

/* Ends idle flows, accepts again, and frees what was removed; to be called between rounds of
 * events. `rested`: whether a rest that began before this round is over. */
void forwards_sweep(struct forwards* forwards, long now_ms, bool rested);

/* Closes and frees everything, but for the tunnels. */
void forwards_end(struct forwards* forwards);

#endif
