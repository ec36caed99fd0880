/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/watch.h"

#include <stddef.h>
#include <sys/epoll.h>
#include <unistd.h>

void watch_none(struct watch* watch) {
  watch_open(watch, -1, -1, NULL, NULL);
}

void watch_open(struct watch* watch, int epoll, int fd, void* owner,
                void (*ready)(struct watch* watch, uint32_t events)) {
  watch->fd = fd;
  watch->epoll = epoll;
  watch->events = 0;
  watch->owner = owner;
  watch->ready = ready;
}

bool watch_set(struct watch* watch, uint32_t events) {
  if (watch->fd < 0 || watch->events == events) return true;
  int operation = EPOLL_CTL_MOD;
  if (watch->events == 0) operation = EPOLL_CTL_ADD;
  if (events == 0) operation = EPOLL_CTL_DEL;
  struct epoll_event event = {.events = events, .data = {.ptr = watch}};
  if (epoll_ctl(watch->epoll, operation, watch->fd, &event) != 0) return false;
  watch->events = events;
  return true;
}

int watch_release(struct watch* watch) {
  /*
   * epoll watches the open file, not the descriptor: while a child between fork and execve has a
   * copy, closing ours would leave epoll reporting to an owner that is gone (epoll(7), questions
   * and answers).
   */
  watch_set(watch, 0);
  int descriptor = watch->fd;
  watch_none(watch);
  return descriptor;
}

void watch_close(struct watch* watch) {
  if (watch->fd < 0) return;
  close(watch_release(watch));
}
