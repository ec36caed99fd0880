/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/netlink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the kernel puts into one piece of an answer at most (netlink_dump() in
 * net/netlink/af_netlink.c). */
#define RECEIVED_MAX 32768u

#define ATTRIBUTE_HEADER sizeof(struct nlattr)
_Static_assert(ATTRIBUTE_HEADER % NLA_ALIGNTO == 0, "NLA_HDRLEN, which is signed");

static _Alignas(struct nlmsghdr) uint8_t received[RECEIVED_MAX];

/* Room for `length` more bytes, and what aligns the next ones; zeros. NULL when there is none. */
static uint8_t* reserve(struct netlink_batch* batch, size_t length) {
  size_t aligned = NLMSG_ALIGN(length);
  if (batch->overflowed || aligned > sizeof batch->bytes - batch->length) {
    batch->overflowed = true;
    return NULL;
  }
  uint8_t* room = batch->bytes + batch->length;
  memset(room, 0, aligned);
  batch->length += aligned;
  return room;
}

static void set_message_length(struct netlink_batch* batch) {
  uint32_t length = (uint32_t)(batch->length - batch->message);
  memcpy(batch->bytes + batch->message, &length, sizeof length); /* nlmsg_len comes first */
}

void netlink_begin(struct netlink_batch* batch, const char* step, uint16_t type, uint16_t flags,
                   const void* body, size_t length) {
  if (batch->count == NETLINK_MESSAGES_MAX) batch->overflowed = true;
  size_t start = batch->length;
  uint8_t* room = reserve(batch, NLMSG_HDRLEN + length);
  if (room == NULL) return;
  batch->message = start;
  batch->steps[batch->count] = step;
  struct nlmsghdr header = {
      .nlmsg_type = type,
      .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
      .nlmsg_seq = batch->count++,
  };
  memcpy(room, &header, sizeof header);
  memcpy(room + NLMSG_HDRLEN, body, length);
  set_message_length(batch);
}

void netlink_attribute(struct netlink_batch* batch, uint16_t type, const void* value,
                       size_t length) {
  struct nlattr header = {.nla_len = (uint16_t)(ATTRIBUTE_HEADER + length), .nla_type = type};
  uint8_t* room = reserve(batch, ATTRIBUTE_HEADER + length);
  if (room == NULL) return;
  memcpy(room, &header, sizeof header);
  memcpy(room + ATTRIBUTE_HEADER, value, length);
  set_message_length(batch);
}

size_t netlink_begin_nest(struct netlink_batch* batch, uint16_t type) {
  size_t nest = batch->length;
  netlink_attribute(batch, (uint16_t)(type | NLA_F_NESTED), "", 0);
  return nest;
}

void netlink_end_nest(struct netlink_batch* batch, size_t nest) {
  if (batch->overflowed) return;
  uint16_t length = (uint16_t)(batch->length - nest);
  memcpy(batch->bytes + nest, &length, sizeof length); /* nla_len comes first */
}

const struct nlattr* netlink_find(const void* attributes, size_t length, uint16_t type) {
  const uint8_t* next = attributes;
  while (length >= sizeof(struct nlattr)) {
    const struct nlattr* attribute = (const void*)next;
    if (attribute->nla_len < sizeof *attribute || attribute->nla_len > length) return NULL;
    if ((attribute->nla_type & NLA_TYPE_MASK) == type) return attribute;
    size_t size = NLA_ALIGN(attribute->nla_len);
    if (size >= length) return NULL;
    next += size;
    length -= size;
  }
  return NULL;
}

const void* netlink_value(const struct nlattr* attribute) {
  return (const uint8_t*)attribute + ATTRIBUTE_HEADER;
}

size_t netlink_value_length(const struct nlattr* attribute) {
  return attribute->nla_len - ATTRIBUTE_HEADER;
}

int netlink_open(int family) {
  return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family);
}

int netlink_send(int socket, const struct netlink_batch* batch) {
  if (batch->overflowed) return EMSGSIZE;
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  ssize_t n = sendto(socket, batch->bytes, batch->length, MSG_NOSIGNAL,
                     (const struct sockaddr*)&kernel, sizeof kernel);
  return n < 0 ? errno : 0;
}

/* Reads the next piece of an answer from the kernel. Returns 0 or an errno. */
static int receive_piece(int socket, size_t* length) {
  struct sockaddr_nl peer = {0};
  socklen_t peer_length = sizeof peer;
  ssize_t n = recvfrom(socket, received, sizeof received, MSG_DONTWAIT | MSG_TRUNC,
                       (struct sockaddr*)&peer, &peer_length);
  if (n < 0) return errno;
  if ((size_t)n > sizeof received) return EMSGSIZE;
  if (peer.nl_pid != 0) return EPROTO; /* of another program, not of the kernel */
  *length = (size_t)n;
  return 0;
}

static bool is_whole(const struct nlmsghdr* message, size_t length) {
  return length >= sizeof *message && message->nlmsg_len >= sizeof *message &&
         message->nlmsg_len <= length;
}

/* The errno of NLMSG_ERROR or NLMSG_DONE, which begin with it; 0 acknowledges. */
static int code_of(const struct nlmsghdr* message) {
  int code = 0;
  if (message->nlmsg_len < NLMSG_HDRLEN + sizeof code) return EPROTO;
  memcpy(&code, (const uint8_t*)message + NLMSG_HDRLEN, sizeof code);
  return -code;
}

int netlink_receive(int socket, unsigned most, netlink_taker take, void* context) {
  while (true) {
    size_t length;
    int code = receive_piece(socket, &length);
    if (code != 0) return code;
    const uint8_t* next = received;
    while (length > 0) {
      const struct nlmsghdr* message = (const void*)next;
      if (!is_whole(message, length)) return EPROTO;
      if (message->nlmsg_type == NLMSG_DONE) return 0;
      if (message->nlmsg_type == NLMSG_ERROR) return code_of(message);
      if (most-- == 0 || !take(context, message)) return 0;
      if ((message->nlmsg_flags & NLM_F_MULTI) == 0) return 0;
      size_t size = NLMSG_ALIGN(message->nlmsg_len);
      if (size >= length) break;
      next += size;
      length -= size;
    }
  }
}

int netlink_receive_acknowledgements(int socket, const struct netlink_batch* batch,
                                     const char** step) {
  *step = batch->count > 0 ? batch->steps[0] : "";
  for (uint32_t i = 0; i < batch->count; i++) {
    size_t length;
    *step = batch->steps[i];
    int code = receive_piece(socket, &length);
    if (code != 0) return code;
    const struct nlmsghdr* message = (const void*)received;
    if (!is_whole(message, length) || message->nlmsg_type != NLMSG_ERROR ||
        message->nlmsg_seq != i) {
      return EPROTO;
    }
    code = code_of(message);
    if (code != 0) return code;
  }
  return 0;
}
