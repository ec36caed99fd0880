/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/boot_network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "protocol/msb_exec.h"

#define MTU_MIN 576u /* RFC 791: what every host takes */
#define MTU_MAX 65535u
#define MTU_IPV6_MIN 1280u /* RFC 8200, 5 */
#define NAME_LENGTH_MAX 253u
#define SEARCH_LENGTH_MAX 1024u
#define LOOPBACK_NET 127u /* 127.0.0.0/8 */

static const unsigned prefix_max[BOOT_FAMILIES] = {32, 128};

static const char name_characters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
static const char search_characters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._- ";

static bool refuse(struct failure* failure, unsigned line, const char* what) {
  return fail(failure, MSB_STAGE_BOOT, EINVAL, "boot file, line %u: %s", line, what);
}

static bool refuse_more(struct failure* failure, unsigned line, unsigned most, const char* what) {
  return fail(failure, MSB_STAGE_BOOT, E2BIG, "boot file, line %u: more than %u %s", line, most,
              what);
}

/* Splits `text` at single spaces into exactly `count` words, in place. */
static bool split(char* text, size_t count, char** words) {
  for (size_t i = 0; i < count; i++) {
    char* space = strchr(text, ' ');
    if ((space == NULL) != (i + 1 == count)) return false;
    if (space != NULL) *space = '\0';
    if (*text == '\0') return false;
    words[i] = text;
    text = space == NULL ? text : space + 1;
  }
  return true;
}

/* Digits alone. */
static bool take_number(const char* text, unsigned least, unsigned most, unsigned* number) {
  unsigned value = 0;
  if (*text == '\0') return false;
  for (; *text != '\0'; text++) {
    if (*text < '0' || *text > '9') return false;
    value = value * 10 + (unsigned)(*text - '0');
    if (value > most) return false;
  }
  *number = value;
  return value >= least;
}

static int hex_digit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

/* "52:54:00:12:34:56", of one station rather than of a group (IEEE 802). */
static bool take_mac(const char* text, uint8_t mac[BOOT_MAC_SIZE]) {
  for (size_t i = 0; i < BOOT_MAC_SIZE; i++) {
    int high = hex_digit(text[0]);
    int low = high < 0 ? -1 : hex_digit(text[1]);
    if (low < 0 || text[2] != (i + 1 < BOOT_MAC_SIZE ? ':' : '\0')) return false;
    mac[i] = (uint8_t)(high << 4 | low);
    text += 3;
  }
  return (mac[0] & 1) == 0;
}

static bool take_address(const char* text, uint8_t bytes[16], enum boot_family* family) {
  *family = strchr(text, ':') == NULL ? BOOT_IPV4 : BOOT_IPV6;
  return inet_pton(*family == BOOT_IPV4 ? AF_INET : AF_INET6, text, bytes) == 1;
}

/* "MAC MTU" */
static bool parse_interface(char* value, unsigned line, struct boot_network* network,
                            struct failure* failure) {
  struct boot_card* card = &network->card;
  char* words[2];
  if (card->present) return refuse(failure, line, "a second interface");
  if (!split(value, 2, words) || !take_mac(words[0], card->mac) ||
      !take_number(words[1], MTU_MIN, MTU_MAX, &card->mtu)) {
    return refuse(failure, line, "an interface has a MAC address, and an MTU of 576 to 65535");
  }
  card->present = true;
  return true;
}

/* "ADDRESS/PREFIX" */
static bool parse_address(char* value, unsigned line, struct boot_network* network,
                          struct failure* failure) {
  struct boot_address address = {.present = true};
  enum boot_family family;
  unsigned prefix;
  char* slash = strchr(value, '/');
  if (slash != NULL) *slash = '\0';
  if (slash == NULL || !take_address(value, address.bytes, &family) ||
      !take_number(slash + 1, 1, prefix_max[family], &prefix)) {
    return refuse(failure, line, "not an address with its prefix, as in 192.0.2.2/24");
  }
  if (network->card.addresses[family].present) {
    return refuse(failure, line, "a second address of its family");
  }
  address.prefix = (uint8_t)prefix;
  network->card.addresses[family] = address;
  return true;
}

/* "ADDRESS" or "ADDRESS MAC" */
static bool parse_gateway(char* value, unsigned line, struct boot_network* network,
                          struct failure* failure) {
  struct boot_gateway gateway = {.present = true};
  enum boot_family family;
  char* mac = strchr(value, ' ');
  if (mac != NULL) *mac++ = '\0';
  gateway.has_mac = mac != NULL;
  if (!take_address(value, gateway.bytes, &family) ||
      (gateway.has_mac && !take_mac(mac, gateway.mac))) {
    return refuse(failure, line, "a gateway has an address, and may have a MAC address");
  }
  if (network->card.gateways[family].present) {
    return refuse(failure, line, "a second gateway of its family");
  }
  network->card.gateways[family] = gateway;
  return true;
}

static bool parse_nameserver(char* value, unsigned line, struct boot_network* network,
                             struct failure* failure) {
  uint8_t bytes[16];
  enum boot_family family;
  if (!take_address(value, bytes, &family)) {
    return refuse(failure, line, "a nameserver is an address");
  }
  if (network->nameserver_count == BOOT_NAMESERVERS_MAX) {
    return refuse_more(failure, line, BOOT_NAMESERVERS_MAX, "nameservers");
  }
  network->nameservers[network->nameserver_count++] = value;
  return true;
}

static bool parse_search(char* value, unsigned line, struct boot_network* network,
                         struct failure* failure) {
  size_t length = strlen(value);
  if (network->search != NULL) return refuse(failure, line, "a second search");
  if (length == 0 || length > SEARCH_LENGTH_MAX || strspn(value, search_characters) != length) {
    return refuse(failure, line, "a search has domains, with spaces between them");
  }
  network->search = value;
  return true;
}

/* "NAME ADDRESS" */
static bool parse_host(char* value, unsigned line, struct boot_network* network,
                       struct failure* failure) {
  char* words[2];
  uint8_t bytes[16];
  enum boot_family family;
  if (!split(value, 2, words) || strlen(words[0]) > NAME_LENGTH_MAX ||
      strspn(words[0], name_characters) != strlen(words[0]) ||
      !take_address(words[1], bytes, &family)) {
    return refuse(failure, line, "a host has a name and an address");
  }
  if (network->host_count == BOOT_HOSTS_MAX) {
    return refuse_more(failure, line, BOOT_HOSTS_MAX, "hosts");
  }
  network->hosts[network->host_count++] = (struct boot_host){.name = words[0], .address = words[1]};
  return true;
}

/* "PROTOCOL ADDRESS PORT VSOCKPORT" */
static bool parse_forward(char* value, unsigned line, struct boot_network* network,
                          struct failure* failure) {
  char* words[4];
  struct boot_forward forward = {0};
  unsigned port;
  unsigned host_port;
  if (!split(value, 4, words)) {
    return refuse(failure, line, "a forward has a protocol, an address, a port and a vsock port");
  }
  forward.protocol = strcmp(words[0], "tcp") == 0 ? IPPROTO_TCP : IPPROTO_UDP;
  if (forward.protocol == IPPROTO_UDP && strcmp(words[0], "udp") != 0) {
    return refuse(failure, line, "a forward's protocol is \"tcp\" or \"udp\"");
  }
  if (inet_pton(AF_INET, words[1], &forward.address) != 1 ||
      ntohl(forward.address.s_addr) >> 24 != LOOPBACK_NET) {
    return refuse(failure, line, "a forward's address lies in 127.0.0.0/8");
  }
  if (!take_number(words[2], 1, UINT16_MAX, &port) ||
      !take_number(words[3], MSB_PORT_FORWARD, UINT16_MAX, &host_port)) {
    return refuse(failure, line,
                  "a forward's port is 1 to 65535, and its vsock port 1026 to 65535");
  }
  if (network->forward_count == BOOT_FORWARDS_MAX) {
    return refuse_more(failure, line, BOOT_FORWARDS_MAX, "forwards");
  }
  forward.port = (uint16_t)port;
  forward.host_port = host_port;
  network->forwards[network->forward_count++] = forward;
  return true;
}

boot_network_parser boot_network_parser_of(const char* key) {
  static const struct {
    const char* key;
    boot_network_parser parse;
  } parsers[] = {
      {"interface", parse_interface},   {"address", parse_address}, {"gateway", parse_gateway},
      {"nameserver", parse_nameserver}, {"search", parse_search},   {"host", parse_host},
      {"forward", parse_forward},
  };
  for (size_t i = 0; i < sizeof parsers / sizeof *parsers; i++) {
    if (strcmp(key, parsers[i].key) == 0) return parsers[i].parse;
  }
  return NULL;
}

bool boot_network_check(const struct boot_network* network, struct failure* failure) {
  const struct boot_card* card = &network->card;
  bool needs_card = false;
  for (size_t i = 0; i < BOOT_FAMILIES; i++) {
    needs_card = needs_card || card->addresses[i].present || card->gateways[i].present;
  }
  if (needs_card && !card->present) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL,
                "boot file: an address or a gateway, and no interface");
  }
  bool ipv6 = card->addresses[BOOT_IPV6].present || card->gateways[BOOT_IPV6].present;
  if (ipv6 && card->mtu < MTU_IPV6_MIN) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL,
                "boot file: IPv6 needs an MTU of at least %u, and the interface has %u",
                MTU_IPV6_MIN, card->mtu);
  }
  return true;
}
