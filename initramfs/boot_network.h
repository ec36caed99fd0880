/* SPDX-License-Identifier: Apache-2.0 */
/* What the boot file says of the network (protocol/msb_boot.h), parsed. No I/O. */
#ifndef MSB_INITRAMFS_BOOT_NETWORK_H
#define MSB_INITRAMFS_BOOT_NETWORK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/failure.h"

#define BOOT_NAMESERVERS_MAX 3u /* MAXNS of resolv.conf(5) */
#define BOOT_HOSTS_MAX 64u
#define BOOT_FORWARDS_MAX 66u /* 64 ports of hosts, and DNS by TCP and UDP */
#define BOOT_MAC_SIZE 6u

enum boot_family { BOOT_IPV4, BOOT_IPV6, BOOT_FAMILIES };

struct boot_address {
  bool present;
  uint8_t prefix;    /* bits */
  uint8_t bytes[16]; /* network byte order; IPv4 in the first 4 */
};

struct boot_gateway {
  bool present;
  bool has_mac;
  uint8_t bytes[16];
  uint8_t mac[BOOT_MAC_SIZE];
};

/* The network card. */
struct boot_card {
  bool present;
  uint8_t mac[BOOT_MAC_SIZE];
  uint32_t mtu;
  struct boot_address addresses[BOOT_FAMILIES];
  struct boot_gateway gateways[BOOT_FAMILIES];
};

struct boot_host {
  const char* name;
  const char* address;
};

struct boot_forward {
  int protocol; /* IPPROTO_TCP or IPPROTO_UDP */
  struct in_addr address;
  uint16_t port;
  uint32_t host_port; /* of vsock */
};

struct boot_network {
  struct boot_card card;
  size_t nameserver_count;
  const char* nameservers[BOOT_NAMESERVERS_MAX];
  const char* search; /* NULL for none */
  size_t host_count;
  struct boot_host hosts[BOOT_HOSTS_MAX];
  size_t forward_count;
  struct boot_forward forwards[BOOT_FORWARDS_MAX];
};

/* Takes the value of a key, in place; `line` is for messages. Fails with MSB_STAGE_BOOT. */
typedef bool (*boot_network_parser)(char* value, unsigned line, struct boot_network* network,
                                    struct failure* failure);

/* Who takes the values of `key`; NULL for one that is not of the network. */
boot_network_parser boot_network_parser_of(const char* key);

/* What can only be seen once all lines were taken. */
bool boot_network_check(const struct boot_network* network, struct failure* failure);

#endif
