/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   CONNECTING --connected--> OPEN --closed by the host, idle, gave way--> REMOVED
 *       |                                                                     ^
 *       +--refused------------------------------------------------------------+
 *
 * CONNECT's begin OPEN. What a program does to its datagram socket never ends a flow.
 */
#include "initramfs/flow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "initramfs/clock.h"
#include "initramfs/datagrams.h"
#include "initramfs/frames.h"
#include "initramfs/guest_address.h"
#include "initramfs/socket_lookup.h"
#include "initramfs/watch.h"
#include "protocol/msb_exec.h"

/* Datagrams that are read of a socket before everybody else has their turn. */
#define DATAGRAMS_PER_TURN 16

enum flow_state { CONNECTING, OPEN, REMOVED };

/* Anybody outside can have it chosen, by a datagram for a port where nobody is. */
#define CHOICE_LASTS_MS 100

struct flow {
  struct flow* next;
  struct flow* previous;
  struct flows* all;
  enum flow_state state;
  struct watch stream;
  struct watch own; /* CONNECT's datagram socket, at this place (guest_address.h) */
  unsigned place;
  int64_t chosen_ms;            /* when it was chosen last */
  const struct boot_card* card; /* of CONNECT, and its port */
  uint16_t port;
  int shared;                /* a forward's, or -1 */
  struct sockaddr_in sender; /* to the forward */
  struct datagrams datagrams;
  long used_ms; /* by clock_now_ms() */
};

/* One for all: a datagram, or a piece of a stream. */
static uint8_t scratch[MSB_MAX_DATA];

static void on_stream(struct watch* watch, uint32_t events);
static void on_own(struct watch* watch, uint32_t events);
static void choose_again(struct flow* flow);

static void unlink_flow(struct flow* flow) {
  struct flows* all = flow->all;
  *(flow->previous == NULL ? &all->first : &flow->previous->next) = flow->next;
  *(flow->next == NULL ? &all->last : &flow->next->previous) = flow->previous;
  flow->next = NULL;
  flow->previous = NULL;
}

static void link_first(struct flow* flow) {
  struct flows* all = flow->all;
  flow->next = all->first;
  *(flow->next == NULL ? &all->last : &flow->next->previous) = flow;
  all->first = flow;
}

static void use(struct flow* flow) {
  flow->used_ms = clock_now_ms();
  unlink_flow(flow);
  link_first(flow);
}

static void remove_flow(struct flow* flow) {
  if (flow->state == REMOVED) return;
  watch_close(&flow->stream);
  watch_close(&flow->own);
  datagrams_free(&flow->datagrams);
  unlink_flow(flow);
  flow->all->count--;
  flow->state = REMOVED;
  flow->next = flow->all->removed;
  flow->all->removed = flow;
}

static struct flow* make_flow(struct flows* flows, int stream, enum flow_state state) {
  struct flow* flow = calloc(1, sizeof *flow);
  if (flow == NULL) return NULL;
  flow->all = flows;
  flow->state = state;
  flow->shared = -1;
  watch_open(&flow->stream, flows->epoll, stream, flow, on_stream);
  watch_none(&flow->own);
  flow->used_ms = clock_now_ms();
  link_first(flow);
  flows->count++;
  return flow;
}

/* Asks for just the events that can be acted upon. Called after everything that changes it. */
static void settle(struct flow* flow) {
  if (flow->state == REMOVED) return;
  uint32_t events = EPOLLOUT;
  if (flow->state == OPEN) {
    events = EPOLLIN;
    if (buffer_length(&flow->datagrams.unsent) > 0) events |= EPOLLOUT;
  }
  if (!watch_set(&flow->stream, events) || !watch_set(&flow->own, EPOLLIN)) remove_flow(flow);
}

static void flush(struct flow* flow) {
  if (flow->state == OPEN && !datagrams_flush(&flow->datagrams, flow->stream.fd)) {
    remove_flow(flow);
  }
}

static bool send_to_program(const struct flow* flow, const uint8_t* bytes, size_t length) {
  bool is_shared = flow->shared >= 0;
  int socket = is_shared ? flow->shared : flow->own.fd;
  const struct sockaddr* to = is_shared ? (const struct sockaddr*)&flow->sender : NULL;
  socklen_t to_length = is_shared ? sizeof flow->sender : 0;
  return sendto(socket, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL, to, to_length) >= 0;
}

/* To the program. What it does not take is lost, as with any network. */
static void deliver(void* context, const uint8_t* bytes, size_t length) {
  struct flow* flow = context;
  /* That nobody was there for one before is told instead of sending this one (udp(7)). */
  if (send_to_program(flow, bytes, length) || errno != ECONNREFUSED) return;
  choose_again(flow);
  send_to_program(flow, bytes, length);
}

/* Reads once, so that everybody has their turn. */
static void receive(struct flow* flow) {
  ssize_t n = recv(flow->stream.fd, scratch, sizeof scratch, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0 || !datagrams_take(&flow->datagrams, scratch, (size_t)n, deliver, flow)) {
    remove_flow(flow);
    return;
  }
  use(flow);
}

static void finish_connecting(struct flow* flow) {
  int code = 0;
  socklen_t length = sizeof code;
  if (getsockopt(flow->stream.fd, SOL_SOCKET, SO_ERROR, &code, &length) != 0 || code != 0) {
    remove_flow(flow);
    return;
  }
  flow->state = OPEN;
  flush(flow);
}

static void on_stream(struct watch* watch, uint32_t events) {
  struct flow* flow = watch->owner;
  if (flow->state == CONNECTING) {
    finish_connecting(flow);
  } else {
    flush(flow);
    if (flow->state == OPEN && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) receive(flow);
  }
  settle(flow);
}

static void on_own(struct watch* watch, uint32_t events) {
  (void)events;
  struct flow* flow = watch->owner;
  for (int i = 0; i < DATAGRAMS_PER_TURN && flow->state != REMOVED; i++) {
    /* An error tells of a datagram that was lost, and is over by being told. */
    ssize_t n = recv(watch->fd, scratch, sizeof scratch, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0 && errno == ECONNREFUSED) choose_again(flow);
    if (n < 0) continue;
    datagrams_add(&flow->datagrams, scratch, (size_t)n);
    /* One by one: not many large ones find room beside each other. */
    flush(flow);
  }
  settle(flow);
}

/* Returns the first place where something would get datagrams, else the first of all. */
static unsigned choose_place(const struct boot_card* card, uint16_t port) {
  for (unsigned place = 0; place < GUEST_PLACES; place++) {
    union guest_address address;
    socklen_t length = guest_address_at(card, place, port, &address);
    if (length > 0 && socket_lookup_receiver(&address)) return place;
  }
  return 0;
}

static int connect_datagrams(const union guest_address* address, socklen_t length) {
  int own = socket(address->any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (own < 0 || connect(own, &address->any, length) == 0) return own;
  int code = errno;
  close(own);
  errno = code;
  return -1;
}

/* A datagram socket that is connected to the port at this place. Returns -1, and errno. */
static int open_own(const struct boot_card* card, uint16_t port, unsigned place) {
  union guest_address address;
  socklen_t length = guest_address_at(card, place, port, &address);
  int own = connect_datagrams(&address, length);
  if (own < 0 || !guest_is_connected_to_itself(own)) return own;
  /* The kernel gave it the very port where nobody is, and gives another one while that is taken. */
  int other = connect_datagrams(&address, length);
  int code = errno;
  close(own);
  errno = code;
  return other;
}

/* Nobody is where its datagrams go: by now somebody may be at another place. */
static void choose_again(struct flow* flow) {
  int64_t now = clock_now_ms();
  if (flow->own.fd < 0 || now - flow->chosen_ms < CHOICE_LASTS_MS) return;
  flow->chosen_ms = now;
  unsigned place = choose_place(flow->card, flow->port);
  int own = place == flow->place ? -1 : open_own(flow->card, flow->port, place);
  if (own < 0) return;
  watch_close(&flow->own);
  watch_open(&flow->own, flow->all->epoll, own, flow, on_own);
  flow->place = place;
}

static bool begin_with(struct flow* flow, const uint8_t* rest, size_t length) {
  struct msb_done done = {0};
  if (!frame_append(&flow->datagrams.unsent, MSB_DONE, &done, sizeof done)) return false;
  if (!datagrams_take(&flow->datagrams, rest, length, deliver, flow)) return false;
  flush(flow);
  return true;
}

bool flow_open(struct flows* flows, const struct boot_card* card, int connection, uint16_t port,
               const uint8_t* rest, size_t rest_length, struct failure* failure) {
  unsigned place = choose_place(card, port);
  int own = open_own(card, port, place);
  if (own < 0) {
    bool is_resource = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;
    return fail(failure, is_resource ? MSB_STAGE_RESOURCES : MSB_STAGE_REQUEST, errno,
                "cannot connect to UDP port %u", port);
  }
  struct flow* flow = make_flow(flows, connection, OPEN);
  if (flow == NULL) {
    close(own);
    return fail(failure, MSB_STAGE_RESOURCES, ENOMEM, "no memory for a tunnel");
  }
  watch_open(&flow->own, flows->epoll, own, flow, on_own);
  flow->place = place;
  flow->card = card;
  flow->port = port;
  if (!begin_with(flow, rest, rest_length)) remove_flow(flow);
  settle(flow);
  return true;
}

static bool is_of(const struct flow* flow, const struct flow_forward* forward,
                  const struct sockaddr_in* sender) {
  return flow->shared == forward->socket && flow->sender.sin_port == sender->sin_port &&
         flow->sender.sin_addr.s_addr == sender->sin_addr.s_addr;
}

static struct flow* flow_of(struct flows* flows, const struct flow_forward* forward,
                            const struct sockaddr_in* sender) {
  for (struct flow* flow = flows->first; flow != NULL; flow = flow->next) {
    if (is_of(flow, forward, sender)) return flow;
  }
  int stream = forward->connect(forward->host_port);
  if (stream < 0) return NULL;
  if (flows->count == FLOW_SENDERS_MAX) remove_flow(flows->last);
  struct flow* flow = make_flow(flows, stream, CONNECTING);
  if (flow == NULL) {
    close(stream);
    return NULL;
  }
  flow->shared = forward->socket;
  flow->sender = *sender;
  return flow;
}

void flow_pass(struct flows* flows, const struct flow_forward* forward,
               const struct sockaddr_in* sender, const uint8_t* bytes, size_t length) {
  struct flow* flow = flow_of(flows, forward, sender);
  if (flow == NULL) return;
  datagrams_add(&flow->datagrams, bytes, length);
  use(flow);
  flush(flow);
  settle(flow);
}

long flows_deadline(const struct flows* flows) {
  return flows->last == NULL ? -1 : flows->last->used_ms + FLOW_IDLE_MS;
}

void flows_expire(struct flows* flows, long now_ms) {
  while (flows->last != NULL && flows->last->used_ms + FLOW_IDLE_MS <= now_ms) {
    remove_flow(flows->last);
  }
}

void flows_sweep(struct flows* flows) {
  while (flows->removed != NULL) {
    struct flow* flow = flows->removed;
    flows->removed = flow->next;
    free(flow);
  }
}

void flows_end(struct flows* flows) {
  while (flows->first != NULL) remove_flow(flows->first);
  flows_sweep(flows);
}
