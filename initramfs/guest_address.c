/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/guest_address.h"

#include <string.h>
#include <sys/socket.h>

static const uint8_t loopback[BOOT_FAMILIES][16] = {{127, 0, 0, 1}, {[15] = 1}};

socklen_t guest_address_at(const struct boot_card* card, unsigned place, uint16_t port,
                           union guest_address* address) {
  enum boot_family family = place % BOOT_FAMILIES == 0 ? BOOT_IPV4 : BOOT_IPV6;
  const uint8_t* bytes = loopback[family];
  if (place >= BOOT_FAMILIES) {
    if (card == NULL || place >= GUEST_PLACES || !card->addresses[family].present) return 0;
    bytes = card->addresses[family].bytes;
  }
  memset(address, 0, sizeof *address);
  if (family == BOOT_IPV4) {
    address->ipv4.sin_family = AF_INET;
    address->ipv4.sin_port = htons(port);
    memcpy(&address->ipv4.sin_addr, bytes, sizeof address->ipv4.sin_addr);
    return sizeof address->ipv4;
  }
  address->ipv6.sin6_family = AF_INET6;
  address->ipv6.sin6_port = htons(port);
  memcpy(&address->ipv6.sin6_addr, bytes, sizeof address->ipv6.sin6_addr);
  return sizeof address->ipv6;
}

bool guest_is_connected_to_itself(int socket) {
  union guest_address own;
  union guest_address peer;
  memset(&own, 0, sizeof own);
  memset(&peer, 0, sizeof peer);
  socklen_t own_length = sizeof own;
  socklen_t peer_length = sizeof peer;
  return getsockname(socket, &own.any, &own_length) == 0 &&
         getpeername(socket, &peer.any, &peer_length) == 0 && own_length == peer_length &&
         memcmp(&own, &peer, own_length) == 0;
}
