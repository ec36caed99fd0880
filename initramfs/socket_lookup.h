/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the kernel for sockets of this network by sock_diag(7): the answer is that of its own
 * look-up, and no table is read as text. */
#ifndef MSB_INITRAMFS_SOCKET_LOOKUP_H
#define MSB_INITRAMFS_SOCKET_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "initramfs/guest_address.h"
#include "protocol/msb_exec.h"

/* Whether a UDP socket would get what is sent to this address and port. */
bool socket_lookup_receiver(const union guest_address* address);

struct socket_found {
  uint32_t inode; /* in sockfs; what links in /proc/PID/fd name */
  uint32_t user;  /* that it belongs to */
};

/* The socket with these ends; of UDP, else one that is bound to the local port and not connected.
 * False when there is none that a program has. */
bool socket_lookup(const struct msb_socket* ends, struct socket_found* found);

#endif
