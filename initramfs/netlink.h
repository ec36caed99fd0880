/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to the kernel by netlink(7): put together in a batch, sent at once, and the answers. The
 * kernel answers within send(2), so that nothing here waits.
 */
#ifndef MSB_INITRAMFS_NETLINK_H
#define MSB_INITRAMFS_NETLINK_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NETLINK_BATCH_MAX 4096u
#define NETLINK_MESSAGES_MAX 32u

/* Starts as all zeros. */
struct netlink_batch {
  uint8_t bytes[NETLINK_BATCH_MAX] __attribute__((aligned(NLMSG_ALIGNTO)));
  size_t length;
  size_t message; /* where the last one begins */
  uint32_t count;
  const char* steps[NETLINK_MESSAGES_MAX]; /* what each is to do, for the sentence when it fails */
  bool overflowed;                         /* a message or an attribute found no room */
};

/* Begins a message; its number in the batch is its sequence number. `body` is what follows the
 * header, of `length` bytes. */
void netlink_begin(struct netlink_batch* batch, const char* step, uint16_t type, uint16_t flags,
                   const void* body, size_t length);

/* Adds an attribute to the last message. */
void netlink_attribute(struct netlink_batch* batch, uint16_t type, const void* value,
                       size_t length);

/* Adds an attribute that holds all that are added until netlink_end_nest() gets what this
 * returned. */
size_t netlink_begin_nest(struct netlink_batch* batch, uint16_t type);
void netlink_end_nest(struct netlink_batch* batch, size_t nest);

/* The attribute of that type in `length` bytes of attributes; NULL when there is none. */
const struct nlattr* netlink_find(const void* attributes, size_t length, uint16_t type);

/* What an attribute holds, and how much of it. */
const void* netlink_value(const struct nlattr* attribute);
size_t netlink_value_length(const struct nlattr* attribute);

/* A socket of that netlink family; -1 and errno. */
int netlink_open(int family);

/* Returns 0 or an errno. */
int netlink_send(int socket, const struct netlink_batch* batch);

/* Is given every message that is neither an acknowledgement nor the end. False when it wants no
 * more. */
typedef bool (*netlink_taker)(void* context, const struct nlmsghdr* message);

/*
 * Reads what answers one request, a dump or a single message. Returns 0, the errno that the kernel
 * answered with, or why nothing could be read. At most `most` messages are taken.
 */
int netlink_receive(int socket, unsigned most, netlink_taker take, void* context);

/* Reads the acknowledgement of each message. Returns 0, or the errno of the first that failed, with
 * its step in *step. */
int netlink_receive_acknowledgements(int socket, const struct netlink_batch* batch,
                                     const char** step);

#endif
