/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/forwards.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "initramfs/tunnel.h"
#include "protocol/msb_exec.h"

/* Connections that came in and were not taken yet. */
#define BACKLOG 128

/* What is taken of a socket before everybody else has their turn. */
#define DATAGRAMS_PER_TURN 16

static uint8_t scratch[MSB_MAX_DATA];

static void on_connection(struct watch* watch, uint32_t events);
static void on_datagram(struct watch* watch, uint32_t events);

static bool is_tcp(const struct forward* forward) {
  return forward->said->protocol == IPPROTO_TCP;
}

/* Returns -1, and errno. */
static int open_socket(const struct boot_forward* said) {
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(said->port), .sin_addr = said->address};
  bool tcp = said->protocol == IPPROTO_TCP;
  int type = tcp ? SOCK_STREAM : SOCK_DGRAM;
  int opened = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (opened < 0) return -1;
  /* Not of UDP: there it would let any program take the forward's datagrams (socket(7)). */
  int one = 1;
  if (tcp) setsockopt(opened, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(opened, (const struct sockaddr*)&address, sizeof address) == 0 &&
      (!tcp || listen(opened, BACKLOG) == 0)) {
    return opened;
  }
  int code = errno;
  close(opened);
  errno = code;
  return -1;
}

static bool is_nameserver(const struct boot_network* network, struct in_addr address) {
  for (size_t i = 0; i < network->nameserver_count; i++) {
    struct in_addr nameserver;
    if (inet_pton(AF_INET, network->nameservers[i], &nameserver) == 1 &&
        nameserver.s_addr == address.s_addr) {
      return true;
    }
  }
  return false;
}

bool forwards_open(struct forwards* forwards, const struct boot_network* network,
                   int (*connect)(uint32_t port), struct failure* failure) {
  memset(forwards, 0, sizeof *forwards);
  forwards->connect = connect;
  forwards->nameservers.most = FORWARD_NAMESERVER_CONNECTIONS_MAX;
  forwards->others.most = FORWARD_CONNECTIONS_MAX;
  for (size_t i = 0; i < network->forward_count; i++) {
    const struct boot_forward* said = &network->forwards[i];
    int opened = open_socket(said);
    if (opened < 0) {
      int code = errno;
      char address[INET_ADDRSTRLEN] = "";
      inet_ntop(AF_INET, &said->address, address, sizeof address);
      forwards_end(forwards);
      return fail(failure, MSB_STAGE_BOOT, code, "cannot forward %s %s:%u",
                  said->protocol == IPPROTO_TCP ? "tcp" : "udp", address, said->port);
    }
    struct forward* forward = &forwards->entries[forwards->count++];
    struct forward_limit* limit =
        is_nameserver(network, said->address) ? &forwards->nameservers : &forwards->others;
    *forward = (struct forward){.all = forwards, .limit = limit, .said = said};
    watch_open(&forward->socket, -1, opened, NULL, NULL);
  }
  return true;
}

bool forwards_begin(struct forwards* forwards, int epoll, struct tunnels* tunnels) {
  forwards->tunnels = tunnels;
  forwards->flows.epoll = epoll;
  for (size_t i = 0; i < forwards->count; i++) {
    struct forward* forward = &forwards->entries[i];
    watch_open(&forward->socket, epoll, forward->socket.fd, forward,
               is_tcp(forward) ? on_connection : on_datagram);
    if (!watch_set(&forward->socket, EPOLLIN)) return false;
  }
  return true;
}

/* A listener that is not served would stay readable and keep the loop spinning. */
static void pause_accepting(struct forwards* forwards, struct forward_limit* limit, bool paused) {
  limit->paused = paused;
  for (size_t i = 0; i < forwards->count; i++) {
    struct forward* forward = &forwards->entries[i];
    if (!is_tcp(forward) || forward->limit != limit) continue;
    /* Out of memory: the next sweep tries it again. */
    if (!watch_set(&forward->socket, paused ? 0 : EPOLLIN)) {
      limit->paused = true;
      forwards->resting = true;
    }
  }
}

static void accept_again(struct forwards* forwards, struct forward_limit* limit) {
  if (limit->paused && !forwards->resting && limit->connections < limit->most) {
    pause_accepting(forwards, limit, false);
  }
}

static bool is_out_of_something(int code) {
  return code == EMFILE || code == ENFILE || code == ENOMEM || code == ENOBUFS;
}

static void on_connection(struct watch* watch, uint32_t events) {
  (void)events;
  const struct forward* forward = watch->owner;
  struct forwards* all = forward->all;
  int guest = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (guest < 0) {
    all->resting = is_out_of_something(errno);
    if (!all->resting) return;
    pause_accepting(all, &all->nameservers, true);
    pause_accepting(all, &all->others, true);
    return;
  }
  int host = all->connect(forward->said->host_port);
  if (host < 0) {
    tunnel_reset(guest);
    return;
  }
  struct forward_limit* limit = forward->limit;
  tunnel_join(all->tunnels, host, guest, &limit->connections);
  if (limit->connections == limit->most) pause_accepting(all, limit, true);
}

static void on_datagram(struct watch* watch, uint32_t events) {
  (void)events;
  const struct forward* forward = watch->owner;
  struct forwards* all = forward->all;
  const struct flow_forward to = {
      .socket = watch->fd, .connect = all->connect, .host_port = forward->said->host_port};
  for (int i = 0; i < DATAGRAMS_PER_TURN; i++) {
    struct sockaddr_in sender;
    socklen_t length = sizeof sender;
    ssize_t n = recvfrom(watch->fd, scratch, sizeof scratch, MSG_DONTWAIT,
                         (struct sockaddr*)&sender, &length);
    if (n < 0 && errno == EAGAIN) return;
    if (n >= 0 && length == sizeof sender) {
      flow_pass(&all->flows, &to, &sender, scratch, (size_t)n);
    }
  }
}

void forwards_sweep(struct forwards* forwards, long now_ms, bool rested) {
  flows_expire(&forwards->flows, now_ms);
  flows_sweep(&forwards->flows);
  if (rested) forwards->resting = false;
  accept_again(forwards, &forwards->nameservers);
  accept_again(forwards, &forwards->others);
}

void forwards_end(struct forwards* forwards) {
  flows_end(&forwards->flows);
  for (size_t i = 0; i < forwards->count; i++) watch_close(&forwards->entries[i].socket);
  forwards->count = 0;
}
