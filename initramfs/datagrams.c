/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/datagrams.h"

#include <errno.h>
#include <sys/socket.h>

#define LENGTH_SIZE 2u

void datagrams_add(struct datagrams* datagrams, const uint8_t* bytes, size_t length) {
  struct buffer* unsent = &datagrams->unsent;
  if (length > DATAGRAM_MAX ||
      buffer_length(unsent) + LENGTH_SIZE + length > DATAGRAMS_WAITING_MAX) {
    return;
  }
  uint8_t size[LENGTH_SIZE] = {(uint8_t)length, (uint8_t)(length >> 8)};
  /* Room for both before either: a length without its datagram must never be sent. */
  if (!buffer_reserve(unsent, sizeof size + length)) return;
  buffer_append(unsent, size, sizeof size);
  buffer_append(unsent, bytes, length);
}

bool datagrams_flush(struct datagrams* datagrams, int stream) {
  struct buffer* unsent = &datagrams->unsent;
  while (buffer_length(unsent) > 0) {
    ssize_t n =
        send(stream, buffer_bytes(unsent), buffer_length(unsent), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      buffer_consume(unsent, (size_t)n);
    } else if (errno != EINTR) {
      return errno == EAGAIN;
    }
  }
  return true;
}

/* Gives whole datagrams away. Returns how many bytes they were; false in *valid for a length that
 * no datagram has. */
static size_t take_whole(const uint8_t* bytes, size_t length, datagram_taker take, void* context,
                         bool* valid) {
  size_t taken = 0;
  *valid = true;
  while (length - taken >= LENGTH_SIZE) {
    const uint8_t* next = bytes + taken;
    size_t size = (size_t)(next[0] | next[1] << 8);
    *valid = size <= DATAGRAM_MAX;
    if (!*valid || length - taken - LENGTH_SIZE < size) break;
    take(context, next + LENGTH_SIZE, size);
    taken += LENGTH_SIZE + size;
  }
  return taken;
}

bool datagrams_take(struct datagrams* datagrams, const uint8_t* bytes, size_t length,
                    datagram_taker take, void* context) {
  struct buffer* received = &datagrams->received;
  bool valid;
  if (buffer_length(received) == 0) {
    size_t taken = take_whole(bytes, length, take, context, &valid);
    return valid && buffer_append(received, bytes + taken, length - taken);
  }
  if (!buffer_append(received, bytes, length)) return false;
  size_t taken = take_whole(buffer_bytes(received), buffer_length(received), take, context, &valid);
  buffer_consume(received, taken);
  return valid;
}

void datagrams_free(struct datagrams* datagrams) {
  buffer_free(&datagrams->unsent);
  buffer_free(&datagrams->received);
}
