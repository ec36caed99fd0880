/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/way.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "protocol/msb_exec.h"

/*
 * For a side of which nothing is wanted at the moment: being told of its end or reset, once. Epoll
 * reports those for as long as they last otherwise, and the loop would spin until the other side
 * moves.
 */
#define EVENTS_OF_THE_END (EPOLLRDHUP | EPOLLET)

/* One for all, since only what a side does not take at once has to be kept. */
static uint8_t scratch[MSB_MAX_DATA];

/* `to` takes no more: what was meant for it is dropped, and what it sent before is still passed on
 * the other way. */
static void drop(struct way* way) {
  buffer_free(&way->waiting);
  way->ended = true;
  way->passed = true;
}

/*
 * Sends bytes on. Returns how many were taken. The other side's closing drops the way; false in
 * *alive when it was reset. A vsock connection on its way to be closed says ENOTCONN.
 */
static size_t send_on(struct way* way, const uint8_t* bytes, size_t length, bool* alive) {
  size_t sent = 0;
  *alive = true;
  while (sent < length) {
    ssize_t n = send(way->to->fd, bytes + sent, length - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      sent += (size_t)n;
    } else if (errno == EPIPE || errno == ENOTCONN) {
      drop(way);
      return length;
    } else if (errno != EINTR) {
      *alive = errno == EAGAIN;
      return sent;
    }
  }
  return sent;
}

/* Passes the end of the stream on, behind everything that waits. */
static void pass_end(struct way* way) {
  if (!way->ended || way->passed || buffer_length(&way->waiting) > 0) return;
  shutdown(way->to->fd, SHUT_WR);
  way->passed = true;
}

bool way_send_waiting(struct way* way) {
  struct buffer* waiting = &way->waiting;
  bool alive = true;
  if (buffer_length(waiting) > 0) {
    size_t sent = send_on(way, waiting->data + waiting->start, buffer_length(waiting), &alive);
    /* Empty now if the way was dropped. */
    if (buffer_length(waiting) > 0) buffer_consume(waiting, sent);
  }
  pass_end(way);
  return alive;
}

bool way_receive(struct way* way) {
  if (way->ended || buffer_length(&way->waiting) > 0) return true;
  ssize_t n = recv(way->from->fd, scratch, sizeof scratch, MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) {
    way->ended = true;
    pass_end(way);
    return true;
  }
  bool alive;
  size_t sent = send_on(way, scratch, (size_t)n, &alive);
  return alive && buffer_append(&way->waiting, scratch + sent, (size_t)n - sent);
}

bool way_probe(struct way* way) {
  if (way->passed || send(way->to->fd, scratch, 0, MSG_DONTWAIT | MSG_NOSIGNAL) == 0) return true;
  if (errno != EPIPE && errno != ENOTCONN) return errno == EAGAIN || errno == EINTR;
  drop(way);
  return true;
}

uint32_t way_events(const struct way* from_it, const struct way* to_it) {
  uint32_t events = 0;
  if (!from_it->ended && buffer_length(&from_it->waiting) == 0) events |= EPOLLIN;
  if (buffer_length(&to_it->waiting) > 0) events |= EPOLLOUT;
  return events != 0 ? events : EVENTS_OF_THE_END;
}

uint32_t way_events_of_the_end(void) {
  return EVENTS_OF_THE_END;
}
