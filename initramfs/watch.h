/* SPDX-License-Identifier: Apache-2.0 */
/* A descriptor that the event loop watches, and who wants to know. */
#ifndef MSB_INITRAMFS_WATCH_H
#define MSB_INITRAMFS_WATCH_H

#include <stdbool.h>
#include <stdint.h>

struct watch {
  int fd;          /* -1 when closed */
  int epoll;       /* the loop's epoll descriptor */
  uint32_t events; /* what epoll was asked for; 0 when it does not know the descriptor */
  void* owner;
  void (*ready)(struct watch* watch, uint32_t events);
};

/* A watch of no descriptor. */
void watch_none(struct watch* watch);

/* Takes the descriptor. Nothing is watched yet; `ready` will be called with `owner` set. */
void watch_open(struct watch* watch, int epoll, int fd, void* owner,
                void (*ready)(struct watch* watch, uint32_t events));

/*
 * Asks epoll for exactly `events`; 0 takes the descriptor out, since epoll reports EPOLLHUP and
 * EPOLLERR of every descriptor that it has. Does nothing when it is so already. False when the
 * kernel has no memory.
 */
bool watch_set(struct watch* watch, uint32_t events);

/* Gives the descriptor away: the caller's from now on. */
int watch_release(struct watch* watch);

/* Closes the descriptor, if it is open. */
void watch_close(struct watch* watch);

#endif
