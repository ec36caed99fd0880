/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of two stream sockets that are joined. It reads only while nothing waits, so that
 * what waits is one buffer at most and a side that does not read stops the one that writes.
 */
#ifndef MSB_INITRAMFS_WAY_H
#define MSB_INITRAMFS_WAY_H

#include <stdbool.h>
#include <stdint.h>

#include "initramfs/buffer.h"
#include "initramfs/watch.h"

struct way {
  struct watch* from;
  struct watch* to;
  struct buffer waiting; /* what `to` did not take yet */
  bool ended;            /* no more is to be read */
  bool passed;           /* and `to` knows, or takes nothing any more */
};

/* Each of these is false when a side was reset. */

/* Sends what waits, and behind it the end of the stream. */
bool way_send_waiting(struct way* way);

/* Reads once, so that everybody has their turn, and sends it on. */
bool way_receive(struct way* way);

/*
 * Looks whether `to` still takes anything: a program that ended and one that only ended its output
 * look the same to a reader. Sending nothing tells them apart on Unix sockets and vsock.
 */
bool way_probe(struct way* way);

/* What is wanted of the side that `from_it` reads and `to_it` writes, for watch_set(). */
uint32_t way_events(const struct way* from_it, const struct way* to_it);

/* The same of a side of which nothing is wanted but its end. */
uint32_t way_events_of_the_end(void);

#endif
