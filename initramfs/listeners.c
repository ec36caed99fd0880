/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/listeners.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "initramfs/proc.h"
#include "initramfs/text_lines.h"

#define WORD_DIGITS 8u

/* States of a TCP socket as the tables show them (include/net/tcp_states.h). */
#define STATE_CLOSE 7u
#define STATE_LISTEN 10u

/* Takes exactly `digits` hexadecimal digits from *text, which moves past them. */
static bool take_hex(const char** text, size_t digits, uint32_t* value) {
  uint32_t result = 0;
  for (size_t i = 0; i < digits; i++) {
    char digit = (*text)[i];
    uint32_t number;
    if (digit >= '0' && digit <= '9') {
      number = (uint32_t)(digit - '0');
    } else if (digit >= 'A' && digit <= 'F') {
      number = (uint32_t)(digit - 'A') + 10;
    } else {
      return false;
    }
    result = result << 4 | number;
  }
  *text += digits;
  *value = result;
  return true;
}

static bool take_character(const char** text, char character) {
  if (**text != character) return false;
  ++*text;
  return true;
}

/*
 * Takes "ADDRESS:PORT". The kernel prints each 32 bits of an address, which are in network byte
 * order, as a number of the machine's; the port as the number that it is (get_tcp4_sock() in
 * net/ipv4/tcp_ipv4.c, get_tcp6_sock() in net/ipv6/tcp_ipv6.c).
 */
static bool take_endpoint(const char** text, uint32_t words, struct msb_listener* endpoint) {
  for (uint32_t i = 0; i < words; i++) {
    uint32_t word;
    if (!take_hex(text, WORD_DIGITS, &word)) return false;
    memcpy(endpoint->address + sizeof word * i, &word, sizeof word);
  }
  return take_character(text, ':') && take_hex(text, 4, &endpoint->port);
}

enum listener_line listener_parse(const char* line, struct msb_listener* listener) {
  const char* rest = line;
  uint64_t slot;
  if (!text_take_number(&rest, &slot) || !take_character(&rest, ':') ||
      !take_character(&rest, ' ')) {
    return LISTENER_NONE;
  }
  size_t digits = strspn(rest, "0123456789ABCDEF");
  if (digits != WORD_DIGITS && digits != 4 * WORD_DIGITS) return LISTENER_NONE;
  uint32_t words = (uint32_t)digits / WORD_DIGITS;
  struct msb_listener local = {.family = words == 1 ? 4 : 6};
  struct msb_listener remote;
  uint32_t state;
  if (!take_endpoint(&rest, words, &local) || !take_character(&rest, ' ') ||
      !take_endpoint(&rest, words, &remote) || !take_character(&rest, ' ') ||
      !take_hex(&rest, 2, &state) || !take_character(&rest, ' ')) {
    return LISTENER_NONE;
  }
  if (state == STATE_CLOSE) return LISTENER_CLOSING;
  if (state != STATE_LISTEN) return LISTENER_OTHER;
  *listener = local;
  return LISTENER_LISTENS;
}

static bool keep(struct listeners* listeners, const struct msb_listener* listener) {
  if (listeners->kept == listeners->capacity) {
    uint32_t capacity = listeners->capacity == 0 ? 16 : listeners->capacity * 2;
    struct msb_listener* entries = realloc(listeners->entries, capacity * sizeof *entries);
    if (entries == NULL) return false;
    listeners->entries = entries;
    listeners->capacity = capacity;
  }
  listeners->entries[listeners->kept++] = *listener;
  return true;
}

bool listeners_take(void* listeners, const char* line) {
  struct listeners* all = listeners;
  struct msb_listener listener;
  enum listener_line kind = listener_parse(line, &listener);
  /* Those that listen come first (tcp_get_idx() in net/ipv4/tcp_ipv4.c): however many connections
   * there are, they are not read. */
  if (kind != LISTENER_LISTENS) return kind != LISTENER_OTHER;
  if (all->kept < LISTENERS_MAX && !keep(all, &listener)) {
    all->out_of_memory = true;
    return false;
  }
  all->counted++;
  return all->counted < LISTENERS_COUNTED_MAX;
}

bool listeners_read(struct listeners* listeners) {
  memset(listeners, 0, sizeof *listeners);
  /* By way of the namespace's init, for the reason that metrics_read() gives. */
  proc_read("1/net/tcp", listeners_take, listeners);
  if (listeners->out_of_memory) return false;
  if (listeners->counted < LISTENERS_COUNTED_MAX) {
    proc_read("1/net/tcp6", listeners_take, listeners);
  }
  return !listeners->out_of_memory;
}

void listeners_free(struct listeners* listeners) {
  free(listeners->entries);
  memset(listeners, 0, sizeof *listeners);
}
