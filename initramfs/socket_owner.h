/* SPDX-License-Identifier: Apache-2.0 */
/* Which program has a socket: SOCKET_OWNER (docs/exec-protocol.md). */
#ifndef MSB_INITRAMFS_SOCKET_OWNER_H
#define MSB_INITRAMFS_SOCKET_OWNER_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/msb_exec.h"

/* What is looked at before nobody is found: processes, descriptors of one and of all of them; and
 * how long, for everybody waits meanwhile. */
#define SOCKET_OWNER_PROCESSES_MAX 4096u
#define SOCKET_OWNER_DESCRIPTORS_OF_ONE_MAX 1024u
#define SOCKET_OWNER_DESCRIPTORS_MAX 4096u
#define SOCKET_OWNER_MS 5

struct socket_owner {
  struct msb_owner fields;
  char name[16]; /* TASK_COMM_LEN */
};

/* Looks at processes of the socket's user first, until then by clock_now_ms(). False when nobody is
 * found. */
bool socket_owner_find(const struct msb_socket* ends, long until_ms, struct socket_owner* owner);

#endif
