/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   CONNECTING_GUEST --connected, DONE--+
 *       |                               v
 *       |                              OPEN --both ends of stream passed on--> REMOVED
 *       |                               ^ |                                        ^
 *   CONNECTING_HOST --connected---------+ +--reset by either side------------------+
 *       |                                                                          |
 *       +--either: refused; the other side is told by REFUSED, or by a reset-------+
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

#include "initramfs/failure.h"
#include "initramfs/frames.h"
#include "initramfs/guest_address.h"
#include "initramfs/way.h"

/* How often the kernel repeats a SYN that a full backlog dropped: connecting fails after 1 + 2 + 4
 * seconds, rather than after 2 minutes (TCP_SYNCNT of tcp(7)). */
#define SYN_REPEATS 2

enum tunnel_state { CONNECTING_GUEST, CONNECTING_HOST, OPEN, REMOVED };

struct tunnel {
  struct tunnel* next;
  struct tunnel* previous;
  struct tunnels* all;
  enum tunnel_state state;
  struct watch host;
  struct watch guest;
  struct way to_guest;
  struct way to_host;
  bool guest_is_tcp;
  uint32_t* counted;          /* of tunnel_join(), or NULL */
  struct msb_connect request; /* of tunnel_open() */
  unsigned place;             /* the address that is tried (guest_address.h) */
  int first_error;            /* of the addresses tried so far */
};

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
  if (tunnel->counted != NULL) --*tunnel->counted;
  tunnel->state = REMOVED;
  tunnel->next = tunnel->all->removed;
  tunnel->all->removed = tunnel;
}

/* Closes so that TCP sends a reset, rather than the end of what was sent. */
static void reset_on_close(int socket) {
  struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

/* One side was reset. The other is reset too where it is TCP, so that its program does not take
 * what it has got for all of it. */
static void reset(struct tunnel* tunnel) {
  if (tunnel->guest.fd >= 0 && tunnel->guest_is_tcp) reset_on_close(tunnel->guest.fd);
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

/* Asks for just the events that can be acted upon. Called after everything that changes it. */
static void settle(struct tunnel* tunnel) {
  if (tunnel->state == REMOVED) return;
  if (tunnel->to_guest.passed && tunnel->to_host.passed) {
    remove_tunnel(tunnel);
    return;
  }
  uint32_t host = way_events(&tunnel->to_guest, &tunnel->to_host);
  uint32_t guest = way_events(&tunnel->to_host, &tunnel->to_guest);
  if (tunnel->state != OPEN) {
    bool is_guest = tunnel->state == CONNECTING_GUEST;
    host = is_guest ? way_events_of_the_end() : EPOLLOUT;
    guest = is_guest ? EPOLLOUT : way_events_of_the_end();
  }
  if (!watch_set(&tunnel->host, host) || !watch_set(&tunnel->guest, guest)) reset(tunnel);
}

/* Something happened at the side that `from_it` reads and `to_it` writes. */
static void move(struct tunnel* tunnel, struct way* from_it, struct way* to_it, uint32_t events) {
  bool alive = way_send_waiting(to_it);
  if (alive && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) alive = way_receive(from_it);
  if (alive && (from_it->ended || (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)) {
    alive = way_probe(to_it);
  }
  if (!alive) reset(tunnel);
}

static void opened(struct tunnel* tunnel) {
  struct msb_done done = {0};
  uint8_t frame[FRAME_HEADER_SIZE + sizeof done];
  size_t size = frame_write(frame, MSB_DONE, &done, sizeof done);
  tunnel->state = OPEN;
  if (!buffer_append(&tunnel->to_host.waiting, frame, size) ||
      !way_send_waiting(&tunnel->to_host) || !way_send_waiting(&tunnel->to_guest)) {
    reset(tunnel);
  }
}

static void set_no_delay(int socket) {
  int one = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int open_guest(struct tunnel* tunnel, int family) {
  int guest = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (guest < 0) return errno;
  watch_open(&tunnel->guest, tunnel->all->epoll, guest, tunnel, on_guest);
  return 0;
}

/* Begins to connect to the place that is to be tried. Returns 0, EINPROGRESS, or why not. */
static int connect_tcp(struct tunnel* tunnel) {
  union guest_address address;
  uint16_t port = (uint16_t)tunnel->request.port;
  socklen_t length = guest_address_at(tunnel->all->card, tunnel->place, port, &address);
  if (length == 0) return EADDRNOTAVAIL;
  int code = open_guest(tunnel, address.any.sa_family);
  if (code != 0) return code;
  int repeats = SYN_REPEATS;
  set_no_delay(tunnel->guest.fd);
  setsockopt(tunnel->guest.fd, IPPROTO_TCP, TCP_SYNCNT, &repeats, sizeof repeats);
  return connect(tunnel->guest.fd, &address.any, length) == 0 ? 0 : errno;
}

static bool is_absent(int code) {
  return code == ECONNREFUSED || code == EADDRNOTAVAIL || code == EAFNOSUPPORT ||
         code == ENETUNREACH || code == EHOSTUNREACH || code == ENETDOWN;
}

/* What connecting came to: goes on, tries the next address, or gives up. */
static void connected(struct tunnel* tunnel, int code) {
  bool is_tcp = tunnel->guest_is_tcp;
  while (true) {
    if (code == EINPROGRESS) return;
    if (code == 0 && is_tcp && guest_is_connected_to_itself(tunnel->guest.fd)) code = ECONNREFUSED;
    if (code == 0) {
      opened(tunnel);
      return;
    }
    watch_close(&tunnel->guest);
    if (tunnel->first_error == 0) tunnel->first_error = code;
    if (!is_tcp || !is_absent(code) || ++tunnel->place == GUEST_PLACES) break;
    code = connect_tcp(tunnel);
  }
  /* That there is no IPv6 or no card either is not what a person wants to know. */
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

/* What connecting a socket came to. */
static int take_error(int socket) {
  int code = 0;
  socklen_t length = sizeof code;
  return getsockopt(socket, SOL_SOCKET, SO_ERROR, &code, &length) == 0 ? code : errno;
}

/* Something happened at the side that waits until the other one is connected: whether it only ended
 * its output will be read later. */
static void look_at_waiting(struct tunnel* tunnel, struct way* to_it) {
  if (!way_probe(to_it) || to_it->passed) reset(tunnel);
}

static void on_guest(struct watch* watch, uint32_t events) {
  struct tunnel* tunnel = watch->owner;
  if (tunnel->state == CONNECTING_GUEST) {
    connected(tunnel, take_error(watch->fd));
  } else if (tunnel->state == CONNECTING_HOST) {
    look_at_waiting(tunnel, &tunnel->to_guest);
  } else {
    move(tunnel, &tunnel->to_host, &tunnel->to_guest, events);
  }
  settle(tunnel);
}

static void on_host(struct watch* watch, uint32_t events) {
  struct tunnel* tunnel = watch->owner;
  if (tunnel->state == CONNECTING_GUEST) {
    look_at_waiting(tunnel, &tunnel->to_host);
  } else if (tunnel->state == CONNECTING_HOST) {
    tunnel->state = OPEN;
    if (take_error(watch->fd) != 0) reset(tunnel);
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
  bool has_port = request->kind == MSB_CONNECT_TCP || request->kind == MSB_CONNECT_UDP;
  if (has_port && request->port >= 1 && request->port <= UINT16_MAX && length == 0) return true;
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
  bool acceptable = check(&request, path, length - sizeof request, &address, &failure);
  if (acceptable && request.kind == MSB_CONNECT_UDP) {
    if (flow_open(&tunnels->flows, tunnels->card, connection, (uint16_t)request.port, rest,
                  rest_length, &failure)) {
      return;
    }
  } else if (acceptable) {
    tunnel = make_tunnel(tunnels, connection);
    if (tunnel == NULL || !buffer_append(&tunnel->to_guest.waiting, rest, rest_length)) {
      fail(&failure, MSB_STAGE_RESOURCES, ENOMEM, "no memory for a tunnel");
      if (tunnel != NULL) refuse(tunnel, &failure);
    } else {
      tunnel->request = request;
      tunnel->guest_is_tcp = request.kind == MSB_CONNECT_TCP;
      connected(tunnel,
                tunnel->guest_is_tcp ? connect_tcp(tunnel) : connect_unix(tunnel, &address));
      settle(tunnel);
    }
  }
  if (tunnel == NULL) {
    refuse_connection(connection, &failure);
    close(connection);
  }
}

void tunnel_join(struct tunnels* tunnels, int host, int guest, uint32_t* counted) {
  struct tunnel* tunnel = make_tunnel(tunnels, host);
  if (tunnel == NULL) {
    tunnel_reset(guest);
    close(host);
    return;
  }
  set_no_delay(guest);
  watch_open(&tunnel->guest, tunnels->epoll, guest, tunnel, on_guest);
  tunnel->state = CONNECTING_HOST;
  tunnel->guest_is_tcp = true;
  tunnel->counted = counted;
  ++*counted;
  settle(tunnel);
}

void tunnel_reset(int guest) {
  reset_on_close(guest);
  close(guest);
}

void tunnels_sweep(struct tunnels* tunnels) {
  while (tunnels->removed != NULL) {
    struct tunnel* tunnel = tunnels->removed;
    tunnels->removed = tunnel->next;
    free(tunnel);
  }
  flows_sweep(&tunnels->flows);
}

void tunnels_end(struct tunnels* tunnels) {
  while (tunnels->first != NULL) remove_tunnel(tunnels->first);
  flows_end(&tunnels->flows);
  tunnels_sweep(tunnels);
}
