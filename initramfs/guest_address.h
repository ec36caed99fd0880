/* SPDX-License-Identifier: Apache-2.0 */
/* The addresses at which CONNECT looks for who listens at a port (docs/exec-protocol.md). */
#ifndef MSB_INITRAMFS_GUEST_ADDRESS_H
#define MSB_INITRAMFS_GUEST_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "initramfs/boot_network.h"

union guest_address {
  struct sockaddr any;
  struct sockaddr_in ipv4;
  struct sockaddr_in6 ipv6;
};

/* 127.0.0.1, ::1, the card's IPv4 and its IPv6 address. */
#define GUEST_PLACES 4u

/* The address of a place. Returns its length; 0 when there is none, since the card, which may be
 * NULL, has no such address. */
socklen_t guest_address_at(const struct boot_card* card, unsigned place, uint16_t port,
                           union guest_address* address);

/*
 * With nobody listening, a port out of the range for outgoing connections can be given to the very
 * socket that connects to it: TCP then connects it to itself (RFC 9293, 3.5, simultaneous open),
 * and UDP sends back all that it gets.
 */
bool guest_is_connected_to_itself(int socket);

#endif
