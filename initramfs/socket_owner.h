/* SPDX-License-Identifier: Apache-2.0 */
/* Which program has a socket: SOCKET_OWNER (docs/exec-protocol.md). */
#ifndef MSB_INITRAMFS_SOCKET_OWNER_H
#define MSB_INITRAMFS_SOCKET_OWNER_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/msb_exec.h"

/* What is looked at before nobody is found: processes, and descriptors of all of them. */
#define SOCKET_OWNER_PROCESSES_MAX 4096u
#define SOCKET_OWNER_DESCRIPTORS_MAX 65536u

struct socket_owner {
  struct msb_owner fields;
  char name[16]; /* TASK_COMM_LEN */
};

/* False when nobody is found. */
bool socket_owner_find(const struct msb_socket* ends, struct socket_owner* owner);

#endif
