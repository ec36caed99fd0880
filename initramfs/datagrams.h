/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams in a stream (docs/exec-protocol.md): each has its length in front, 2 bytes,
 * little-endian. A stream that is slow loses datagrams, rather than have more than a few wait.
 */
#ifndef MSB_INITRAMFS_DATAGRAMS_H
#define MSB_INITRAMFS_DATAGRAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/buffer.h"

/* What UDP over IPv4 can carry (RFC 768, RFC 791). */
#define DATAGRAM_MAX 65507u

/* Bytes of datagrams, and of their lengths, that wait for a stream at most. */
#define DATAGRAMS_WAITING_MAX 65536u

/* Starts as all zeros. */
struct datagrams {
  struct buffer unsent;   /* what the stream did not take yet */
  struct buffer received; /* of a datagram that has not come whole */
};

/* Adds a datagram to what is to be sent, unless it is too long or finds no room. */
void datagrams_add(struct datagrams* datagrams, const uint8_t* bytes, size_t length);

/* Sends what the stream takes at once. False when it was closed. */
bool datagrams_flush(struct datagrams* datagrams, int stream);

typedef void (*datagram_taker)(void* context, const uint8_t* bytes, size_t length);

/* Takes the next piece of the stream, wherever it was cut, and gives every whole datagram away.
 * False for a length that no datagram has, and without memory. */
bool datagrams_take(struct datagrams* datagrams, const uint8_t* bytes, size_t length,
                    datagram_taker take, void* context);

void datagrams_free(struct datagrams* datagrams);

#endif
