/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flows of datagrams: a stream socket to the host, on which datagrams have their lengths in front
 * (datagrams.h), joined to a datagram socket in the guest, which is the flow's own (CONNECT), or is
 * shared by all that send to a forward.
 */
#ifndef MSB_INITRAMFS_FLOW_H
#define MSB_INITRAMFS_FLOW_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/boot_network.h"
#include "initramfs/failure.h"

struct flow;

/* Of the senders to forwards: so many at a time, the one that was silent longest gives way; each as
 * long as something comes from either side. */
#define FLOW_SENDERS_MAX 256u
#define FLOW_IDLE_MS 60000

struct flows {
  int epoll;
  struct flow* first; /* doubly linked, the last used first */
  struct flow* last;
  struct flow* removed; /* to be freed once no event can name them any more */
  uint32_t count;
};

/*
 * Takes `connection` over, on which CONNECT came to this port, and behind it already `rest_length`
 * bytes. Answers DONE. False, and takes nothing, when it cannot be done.
 */
bool flow_open(struct flows* flows, const struct boot_card* card, int connection, uint16_t port,
               const uint8_t* rest, size_t rest_length, struct failure* failure);

/* Where the datagrams of a sender to a forward go to. */
struct flow_forward {
  int socket;                    /* the forward's */
  int (*connect)(uint32_t port); /* begins a connection to the host; -1 and errno */
  uint32_t host_port;
};

/* Passes a datagram of a sender on, by a flow of its own. Loses it when there can be none. */
void flow_pass(struct flows* flows, const struct flow_forward* forward,
               const struct sockaddr_in* sender, const uint8_t* bytes, size_t length);

/* When flows_expire() has something to do, by clock_now_ms(); -1 for never. Only for flows of
 * senders: others last as long as the host wants. */
long flows_deadline(const struct flows* flows);
void flows_expire(struct flows* flows, long now_ms);

/* Frees what was removed; to be called between rounds of events. */
void flows_sweep(struct flows* flows);

/* Closes and frees everything. */
void flows_end(struct flows* flows);

#endif
