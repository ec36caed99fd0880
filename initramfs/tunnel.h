/* SPDX-License-Identifier: Apache-2.0 */
/* Tunnels (docs/exec-protocol.md): a connection of the host joined to a socket in the guest. */
#ifndef MSB_INITRAMFS_TUNNEL_H
#define MSB_INITRAMFS_TUNNEL_H

#include <stddef.h>
#include <stdint.h>

#include "initramfs/flow.h"

struct tunnel;

/* All tunnels of an agent. */
struct tunnels {
  int epoll;
  const struct boot_card* card; /* whose addresses are tried too; NULL for none */
  struct flows flows;           /* the tunnels of datagrams; with the same epoll */
  struct tunnel* first;         /* doubly linked */
  struct tunnel* removed;       /* to be freed once no event can name them any more */
};

/*
 * Takes `connection` over, a stream socket on which CONNECT with this payload came, and behind it
 * already `rest_length` bytes for the other side. Nothing blocks; answers DONE or REFUSED by
 * itself.
 */
void tunnel_open(struct tunnels* tunnels, int connection, const uint8_t* payload, size_t length,
                 const uint8_t* rest, size_t rest_length);

/*
 * Joins two sockets, which it takes over: one that is being connected to the host, and a TCP
 * connection of a program, which is reset when the host refuses. *counted is one more while they
 * are joined.
 */
void tunnel_join(struct tunnels* tunnels, int host, int guest, uint32_t* counted);

/* Closes a TCP connection so that its program is told that something went wrong. */
void tunnel_reset(int guest);

/* Frees what was removed; to be called between rounds of events. */
void tunnels_sweep(struct tunnels* tunnels);

/* Closes and frees everything. */
void tunnels_end(struct tunnels* tunnels);

#endif
