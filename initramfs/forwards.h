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

/* TCP connections at a time, as many as the host takes: to nameservers, and of all other forwards
 * together. More are not accepted before one ends. */
#define FORWARD_NAMESERVER_CONNECTIONS_MAX 64u
#define FORWARD_CONNECTIONS_MAX 256u

struct forward_limit {
  uint32_t most;
  uint32_t connections;
  bool paused; /* nothing is accepted */
};

struct forward {
  struct watch socket;
  struct forwards* all;
  struct forward_limit* limit;
  const struct boot_forward* said;
};

struct forwards {
  size_t count;
  struct forward entries[BOOT_FORWARDS_MAX];
  int (*connect)(uint32_t port);
  struct tunnels* tunnels;
  struct flows flows; /* of senders of datagrams */
  struct forward_limit nameservers;
  struct forward_limit others;
  bool resting; /* both are paused: the guest is out of descriptors or memory */
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
