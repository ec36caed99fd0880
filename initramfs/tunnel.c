/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   CONNECTING --connected, DONE--> OPEN --both ends of stream passed on--> REMOVED
 *       |                             |                                        ^
 *       +--refused, REFUSED-----------+--reset by either side------------------+
 *
 * Each direction reads only while nothing of it waits, so that what waits is one buffer at most and
 * a side that does not read stops the one that writes.
 */
#include "initramfs/tunnel.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "initramfs/buffer.h"
#include "initramfs/failure.h"
#include "initramfs/frames.h"
#include "initramfs/watch.h"

/* How often the kernel repeats a SYN that a full backlog dropped: connecting fails after 1 + 2 + 4
 * seconds, rather than after 2 minutes (TCP_SYNCNT of tcp(7)). */
#define SYN_REPEATS 2

/*
 * For a side of which nothing is wanted at the moment: being told of its end or reset, once. Epoll
 * reports those for as long as they last otherwise, and the loop would spin until the other side
 * moves.
 */
#define EVENTS_OF_THE_END (EPOLLRDHUP | EPOLLET)

struct way {
  struct watch* from;
  struct watch* to;
  struct buffer waiting; /* what `to` did not take yet */
  bool ended;            /* no more is to be read */
  bool passed;           /* and `to` knows, or takes nothing any more */
};

enum tunnel_state { CONNECTING, OPEN, REMOVED };

struct tunnel {
  struct tunnel* next;
  struct tunnel* previous;
  struct tunnels* all;
  enum tunnel_state state;
  struct watch host;
  struct watch guest;
  struct way to_guest;
  struct way to_host;
  struct msb_connect request;
  int first_error; /* of the addresses tried so far */
  bool tried_ipv6;
};

/* One for all, since only what a side does not take at once has to be kept. */
static uint8_t scratch[MSB_MAX_DATA];

static void on_host(struct watch* watch, uint32_t events);
static void on_guest(struct watch* watch, uint32_t events);

static void remove_tunnel(struct tunnel* tunnel) {
  if (tunnel->state == REMOVED) return;
  watch_close(&tunnel->host);
  watch_close(&tunnel->guest);
  buffer_free(&tunnel->to_guest.waiting);
  buffer_free(&tunnel->to_host.waiting);
  if (tunnel->previous != NULL) {
    tunnel->previous->next = tunnel->next;
  } else {
    tunnel->all->first = tunnel->next;
  }
  if (tunnel->next != NULL) tunnel->next->previous = tunnel->previous;
  tunnel->state = REMOVED;
  tunnel->next = tunnel->all->removed;
  tunnel->all->removed = tunnel;
}

/* One side was reset. The other is reset too where it is TCP, so that its program does not take
 * what it has got for all of it. */
static void reset(struct tunnel* tunnel) {
  struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  if (tunnel->guest.fd >= 0 && tunnel->request.kind == MSB_CONNECT_TCP) {
    setsockopt(tunnel->guest.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }
  remove_tunnel(tunnel);
}

static void refuse_connection(int connection, const struct failure* failure) {
  uint8_t frame[FRAME_HEADER_SIZE + sizeof(struct msb_failure) + sizeof failure->text];
  struct msb_failure fixed = {.stage = failure->stage, .code = failure->code};
  size_t text = strlen(failure->text);
  frame_write_header(frame, MSB_REFUSED, (uint32_t)(sizeof fixed + text));
  memcpy(frame + FRAME_HEADER_SIZE, &fixed, sizeof fixed);
  memcpy(frame + FRAME_HEADER_SIZE + sizeof fixed, failure->text, text);
  /* The first bytes of a connection find room; a host that is gone needs none. */
  send(connection, frame, FRAME_HEADER_SIZE + sizeof fixed + text, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void refuse(struct tunnel* tunnel, const struct failure* failure) {
  refuse_connection(tunnel->host.fd, failure);
  remove_tunnel(tunnel);
}

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

/* False when the tunnel was reset. */
static bool send_waiting(struct way* way) {
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

/* Reads once, so that every tunnel has its turn. False when the tunnel was reset. */
static bool receive(struct way* way) {
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

/*
 * Looks whether `to` still takes anything: a program that ended and one that only ended its output
 * look the same to a reader. Sending nothing tells them apart on Unix sockets and vsock. False when
 * the tunnel was reset.
 */
static bool probe(struct way* way) {
  if (way->passed || send(way->to->fd, scratch, 0, MSG_DONTWAIT | MSG_NOSIGNAL) == 0) return true;
  if (errno != EPIPE && errno != ENOTCONN) return errno == EAGAIN || errno == EINTR;
  drop(way);
  return true;
}

static uint32_t wanted(const struct way* from_it, const struct way* to_it) {
  uint32_t events = 0;
  if (!from_it->ended && buffer_length(&from_it->waiting) == 0) events |= EPOLLIN;
  if (buffer_length(&to_it->waiting) > 0) events |= EPOLLOUT;
  return events != 0 ? events : EVENTS_OF_THE_END;
}

/* Asks for just the events that can be acted upon. Called after everything that changes it. */
static void settle(struct tunnel* tunnel) {
  if (tunnel->state == REMOVED) return;
  if (tunnel->to_guest.passed && tunnel->to_host.passed) {
    remove_tunnel(tunnel);
    return;
  }
  bool connecting = tunnel->state == CONNECTING;
  uint32_t host = connecting ? EVENTS_OF_THE_END : wanted(&tunnel->to_guest, &tunnel->to_host);
  uint32_t guest = connecting ? EPOLLOUT : wanted(&tunnel->to_host, &tunnel->to_guest);
  if (!watch_set(&tunnel->host, host) || !watch_set(&tunnel->guest, guest)) reset(tunnel);
}

/* Something happened at the side that `from_it` reads and `to_it` writes. */
static void move(struct tunnel* tunnel, struct way* from_it, struct way* to_it, uint32_t events) {
  bool alive = send_waiting(to_it);
  if (alive && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) alive = receive(from_it);
  if (alive && (from_it->ended || (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)) {
    alive = probe(to_it);
  }
  if (!alive) reset(tunnel);
}

static void opened(struct tunnel* tunnel) {
  struct msb_done done = {0};
  uint8_t frame[FRAME_HEADER_SIZE + sizeof done];
  size_t size = frame_write(frame, MSB_DONE, &done, sizeof done);
  tunnel->state = OPEN;
  if (!buffer_append(&tunnel->to_host.waiting, frame, size) || !send_waiting(&tunnel->to_host) ||
      !send_waiting(&tunnel->to_guest)) {
    reset(tunnel);
  }
}

/*
 * With nobody listening, a port out of the range for outgoing connections can be given to this one
 * itself, and TCP then connects it to itself (RFC 9293, 3.5, simultaneous open).
 */
static bool is_connected_to_itself(int socket) {
  struct sockaddr_in6 own = {0};
  struct sockaddr_in6 peer = {0};
  socklen_t own_length = sizeof own;
  socklen_t peer_length = sizeof peer;
  return getsockname(socket, (struct sockaddr*)&own, &own_length) == 0 &&
         getpeername(socket, (struct sockaddr*)&peer, &peer_length) == 0 &&
         own_length == peer_length && memcmp(&own, &peer, own_length) == 0;
}

static int open_guest(struct tunnel* tunnel, int family) {
  int guest = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (guest < 0) return errno;
  watch_open(&tunnel->guest, tunnel->all->epoll, guest, tunnel, on_guest);
  return 0;
}

/* Begins to connect to the loopback address of a family. Returns 0, EINPROGRESS, or why not. */
static int connect_tcp(struct tunnel* tunnel, int family) {
  in_port_t port = htons((uint16_t)tunnel->request.port);
  struct sockaddr_in ipv4 = {
      .sin_family = AF_INET, .sin_port = port, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  struct sockaddr_in6 ipv6 = {
      .sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  int code = open_guest(tunnel, family);
  if (code != 0) return code;
  int guest = tunnel->guest.fd;
  int one = 1;
  int repeats = SYN_REPEATS;
  setsockopt(guest, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(guest, IPPROTO_TCP, TCP_SYNCNT, &repeats, sizeof repeats);
  bool is_ipv4 = family == AF_INET;
  const void* address = is_ipv4 ? (const void*)&ipv4 : (const void*)&ipv6;
  socklen_t length = is_ipv4 ? sizeof ipv4 : sizeof ipv6;
  return connect(guest, address, length) == 0 ? 0 : errno;
}

static bool is_absent(int code) {
  return code == ECONNREFUSED || code == EADDRNOTAVAIL || code == EAFNOSUPPORT ||
         code == ENETUNREACH || code == EHOSTUNREACH || code == ENETDOWN;
}

/* What connecting came to: goes on, tries the next address, or gives up. */
static void connected(struct tunnel* tunnel, int code) {
  bool is_tcp = tunnel->request.kind == MSB_CONNECT_TCP;
  while (true) {
    if (code == EINPROGRESS) return;
    if (code == 0 && is_tcp && is_connected_to_itself(tunnel->guest.fd)) code = ECONNREFUSED;
    if (code == 0) {
      opened(tunnel);
      return;
    }
    watch_close(&tunnel->guest);
    if (tunnel->first_error == 0) tunnel->first_error = code;
    if (!is_tcp || tunnel->tried_ipv6 || !is_absent(code)) break;
    tunnel->tried_ipv6 = true;
    code = connect_tcp(tunnel, AF_INET6);
  }
  /* That there is no IPv6 either is not what a person wants to know. */
  if (is_absent(code)) code = tunnel->first_error;
  bool is_resource = code == EMFILE || code == ENFILE || code == ENOMEM || code == ENOBUFS;
  uint32_t stage = is_resource ? MSB_STAGE_RESOURCES : MSB_STAGE_REQUEST;
  struct failure failure;
  if (is_tcp) {
    fail(&failure, stage, code, "cannot connect to port %u", tunnel->request.port);
  } else {
    fail(&failure, stage, code, "cannot connect to the Unix socket");
  }
  refuse(tunnel, &failure);
}

static void on_guest(struct watch* watch, uint32_t events) {
  struct tunnel* tunnel = watch->owner;
  if (tunnel->state == CONNECTING) {
    int code = 0;
    socklen_t length = sizeof code;
    if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &code, &length) != 0) code = errno;
    connected(tunnel, code);
  } else {
    move(tunnel, &tunnel->to_host, &tunnel->to_guest, events);
  }
  settle(tunnel);
}

static void on_host(struct watch* watch, uint32_t events) {
  struct tunnel* tunnel = watch->owner;
  if (tunnel->state == CONNECTING) {
    /* Whether it only ended its output will be read later. */
    if (!probe(&tunnel->to_host) || tunnel->to_host.passed) reset(tunnel);
  } else {
    move(tunnel, &tunnel->to_guest, &tunnel->to_host, events);
  }
  settle(tunnel);
}

/* The path of a Unix socket, copied to `address`, or why there is none. */
static bool take_path(const uint8_t* path, size_t length, struct sockaddr_un* address,
                      struct failure* failure) {
  address->sun_family = AF_UNIX;
  if (length == 0 || path[0] != '/' || memchr(path, '\0', length) != path + length - 1) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "CONNECT: not one absolute path");
  }
  if (length > sizeof address->sun_path) {
    return fail(failure, MSB_STAGE_REQUEST, ENAMETOOLONG,
                "CONNECT: the path of a Unix socket has at most %zu bytes",
                sizeof address->sun_path - 1);
  }
  memcpy(address->sun_path, path, length);
  return true;
}

static bool check(const struct msb_connect* request, const uint8_t* path, size_t length,
                  struct sockaddr_un* address, struct failure* failure) {
  if (request->kind == MSB_CONNECT_UNIX && request->port == 0) {
    return take_path(path, length, address, failure);
  }
  if (request->kind == MSB_CONNECT_TCP && request->port >= 1 && request->port <= UINT16_MAX &&
      length == 0) {
    return true;
  }
  return fail(failure, MSB_STAGE_REQUEST, EINVAL, "CONNECT: kind %u, port %u, %zu bytes of path",
              request->kind, request->port, length);
}

static int connect_unix(struct tunnel* tunnel, const struct sockaddr_un* address) {
  int code = open_guest(tunnel, AF_UNIX);
  if (code != 0) return code;
  const struct sockaddr* any = (const struct sockaddr*)address;
  return connect(tunnel->guest.fd, any, sizeof *address) == 0 ? 0 : errno;
}

static struct tunnel* make_tunnel(struct tunnels* tunnels, int connection) {
  struct tunnel* tunnel = calloc(1, sizeof *tunnel);
  if (tunnel == NULL) return NULL;
  watch_open(&tunnel->host, tunnels->epoll, connection, tunnel, on_host);
  watch_none(&tunnel->guest);
  tunnel->to_guest = (struct way){.from = &tunnel->host, .to = &tunnel->guest};
  tunnel->to_host = (struct way){.from = &tunnel->guest, .to = &tunnel->host};
  tunnel->all = tunnels;
  tunnel->next = tunnels->first;
  if (tunnel->next != NULL) tunnel->next->previous = tunnel;
  tunnels->first = tunnel;
  return tunnel;
}

void tunnel_open(struct tunnels* tunnels, int connection, const uint8_t* payload, size_t length,
                 const uint8_t* rest, size_t rest_length) {
  struct failure failure;
  struct msb_connect request;
  struct sockaddr_un address = {0};
  if (length < sizeof request) { /* a protocol error */
    close(connection);
    return;
  }
  memcpy(&request, payload, sizeof request);
  const uint8_t* path = payload + sizeof request;
  struct tunnel* tunnel = NULL;
  if (check(&request, path, length - sizeof request, &address, &failure)) {
    tunnel = make_tunnel(tunnels, connection);
    if (tunnel == NULL || !buffer_append(&tunnel->to_guest.waiting, rest, rest_length)) {
      fail(&failure, MSB_STAGE_RESOURCES, ENOMEM, "no memory for a tunnel");
      if (tunnel != NULL) refuse(tunnel, &failure);
    } else {
      tunnel->request = request;
      connected(tunnel, request.kind == MSB_CONNECT_TCP ? connect_tcp(tunnel, AF_INET)
                                                        : connect_unix(tunnel, &address));
      settle(tunnel);
    }
  }
  if (tunnel == NULL) {
    refuse_connection(connection, &failure);
    close(connection);
  }
}

void tunnels_sweep(struct tunnels* tunnels) {
  while (tunnels->removed != NULL) {
    struct tunnel* tunnel = tunnels->removed;
    tunnels->removed = tunnel->next;
    free(tunnel);
  }
}

void tunnels_end(struct tunnels* tunnels) {
  while (tunnels->first != NULL) remove_tunnel(tunnels->first);
  tunnels_sweep(tunnels);
}
