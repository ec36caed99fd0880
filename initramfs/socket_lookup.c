/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/socket_lookup.h"

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "initramfs/netlink.h"

/* Sockets that are looked at: programs can have any number with one local port. */
#define LOOKED_AT_MAX 4096u

/* States of a socket (include/net/tcp_states.h): TCP's that still belong to a program and have two
 * ends, and both of UDP. */
#define STATE_ESTABLISHED 1u
#define STATE_TIME_WAIT 6u
#define STATE_CLOSE 7u
#define STATE_LISTEN 10u
#define STATE_NEW_SYN_RECV 12u
#define STATES_OF_CONNECTIONS \
  (~(1u << STATE_TIME_WAIT | 1u << STATE_CLOSE | 1u << STATE_LISTEN | 1u << STATE_NEW_SYN_RECV))
#define STATES_OF_UDP (1u << STATE_ESTABLISHED | 1u << STATE_CLOSE)

/* Asks, and gives each answer away. */
static void ask(const struct inet_diag_req_v2* request, uint16_t flags, netlink_taker take,
                void* context) {
  struct netlink_batch batch = {0};
  int socket = netlink_open(NETLINK_SOCK_DIAG);
  if (socket < 0) return;
  netlink_begin(&batch, "", SOCK_DIAG_BY_FAMILY, flags, request, sizeof *request);
  if (netlink_send(socket, &batch) == 0) netlink_receive(socket, LOOKED_AT_MAX, take, context);
  close(socket);
}

static bool take_fields(const struct nlmsghdr* message, struct inet_diag_msg* fields) {
  if (message->nlmsg_type != SOCK_DIAG_BY_FAMILY ||
      message->nlmsg_len < NLMSG_HDRLEN + sizeof *fields) {
    return false;
  }
  memcpy(fields, (const uint8_t*)message + NLMSG_HDRLEN, sizeof *fields);
  return true;
}

static bool take_receiver(void* context, const struct nlmsghdr* message) {
  struct inet_diag_msg fields;
  bool* found = context;
  *found = take_fields(message, &fields);
  return false;
}

bool socket_lookup_receiver(const union guest_address* address) {
  struct inet_diag_req_v2 request = {
      .sdiag_family = (uint8_t)address->any.sa_family,
      .sdiag_protocol = IPPROTO_UDP,
      .id = {.idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}},
  };
  /* Of UDP the source is that of a packet: the socket is where it is destined (udp_dump_one() in
   * net/ipv4/udp_diag.c). */
  if (address->any.sa_family == AF_INET) {
    request.id.idiag_dport = address->ipv4.sin_port;
    memcpy(request.id.idiag_dst, &address->ipv4.sin_addr, sizeof address->ipv4.sin_addr);
  } else {
    request.id.idiag_dport = address->ipv6.sin6_port;
    memcpy(request.id.idiag_dst, &address->ipv6.sin6_addr, sizeof address->ipv6.sin6_addr);
  }
  bool found = false;
  ask(&request, 0, take_receiver, &found);
  return found;
}

struct search {
  uint8_t remote[16]; /* as sockets of the family have it */
  uint16_t local_port;
  uint16_t remote_port;
  bool unconnected; /* one that is not connected will do */
  bool exact;       /* found with both ends */
  struct socket_found found;
};

static bool take_socket(void* context, const struct nlmsghdr* message) {
  struct search* search = context;
  struct inet_diag_msg fields;
  if (!take_fields(message, &fields) || fields.idiag_inode == 0 ||
      ntohs(fields.id.idiag_sport) != search->local_port) {
    return true;
  }
  bool exact = ntohs(fields.id.idiag_dport) == search->remote_port &&
               memcmp(fields.id.idiag_dst, search->remote, sizeof search->remote) == 0;
  bool will_do = search->unconnected && search->found.inode == 0 && fields.id.idiag_dport == 0;
  if (exact || will_do) {
    search->found = (struct socket_found){.inode = fields.idiag_inode, .user = fields.idiag_uid};
  }
  search->exact = exact;
  return !exact;
}

static void look(const struct msb_socket* ends, uint8_t family, struct search* search) {
  bool udp = ends->protocol == IPPROTO_UDP;
  struct inet_diag_req_v2 request = {
      .sdiag_family = family,
      .sdiag_protocol = (uint8_t)ends->protocol,
      .idiag_states = udp ? STATES_OF_UDP : STATES_OF_CONNECTIONS,
      .id = {.idiag_sport = htons(ends->local_port),
             .idiag_dport = udp ? 0 : htons(ends->remote_port),
             .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}},
  };
  memset(search->remote, 0, sizeof search->remote);
  if (ends->family == 6) {
    memcpy(search->remote, ends->remote, sizeof search->remote);
  } else if (family == AF_INET) {
    memcpy(search->remote, ends->remote, 4);
  } else {
    /* An IPv4-mapped address (RFC 4291, 2.5.5.2). */
    memset(search->remote + 10, 0xff, 2);
    memcpy(search->remote + 12, ends->remote, 4);
  }
  ask(&request, NLM_F_DUMP, take_socket, search);
}

bool socket_lookup(const struct msb_socket* ends, struct socket_found* found) {
  struct search search = {.local_port = ends->local_port,
                          .remote_port = ends->remote_port,
                          .unconnected = ends->protocol == IPPROTO_UDP};
  if (ends->family == 4) look(ends, AF_INET, &search);
  /* IPv4 is also spoken by sockets of IPv6. */
  if (!search.exact) look(ends, AF_INET6, &search);
  *found = search.found;
  return search.found.inode != 0;
}
