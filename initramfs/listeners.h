/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP sockets that listen, from /proc/net/tcp and tcp6. */
#ifndef MSB_INITRAMFS_LISTENERS_H
#define MSB_INITRAMFS_LISTENERS_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/msb_exec.h"

/* What is answered at most, and what is counted at most before the table is left alone: both
 * tables belong to the programs in the machine. */
#define LISTENERS_MAX 4096u
#define LISTENERS_COUNTED_MAX 65536u

enum listener_line {
  LISTENER_LISTENS,
  LISTENER_CLOSING, /* it did until a moment ago */
  LISTENER_OTHER,   /* a connection */
  LISTENER_NONE     /* not an entry of the table: its title, or nothing that the kernel writes */
};

/* One line of a table. Fills in `listener` where it listens. */
enum listener_line listener_parse(const char* line, struct msb_listener* listener);

struct listeners {
  struct msb_listener* entries; /* the first LISTENERS_MAX of them; owned */
  uint32_t kept;
  uint32_t capacity;
  uint32_t counted; /* all of them, up to LISTENERS_COUNTED_MAX */
  bool out_of_memory;
};

/* One line, for text_take() with a struct listeners as context, which starts as all zeros. */
bool listeners_take(void* listeners, const char* line);

/* Reads both tables. False without memory. To be freed in either case. */
bool listeners_read(struct listeners* listeners);

void listeners_free(struct listeners* listeners);

#endif
