/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/network.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/mount.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "protocol/msb_exec.h"

#define CARD_NAME "eth0"
#define LINKS_MAX 1024u
#define LINK_LOCAL_PREFIX 64u /* RFC 4291, 2.5.6 */

static const uint8_t families[BOOT_FAMILIES] = {AF_INET, AF_INET6};
static const uint8_t address_sizes[BOOT_FAMILIES] = {4, 16};

#define BITS_OF(size) ((uint8_t)((size) * 8))

/* fe80:: and the interface identifier of RFC 4291, appendix A, as the kernel itself makes it. */
static void link_local_of(const uint8_t mac[BOOT_MAC_SIZE], uint8_t address[16]) {
  memset(address, 0, 16);
  address[0] = 0xfe;
  address[1] = 0x80;
  memcpy(address + 8, mac, 3);
  address[8] ^= 2;
  address[11] = 0xff;
  address[12] = 0xfe;
  memcpy(address + 13, mac + 3, 3);
}

static bool is_in_prefix(const uint8_t* address, const uint8_t* other, unsigned prefix) {
  if (memcmp(address, other, prefix / 8) != 0) return false;
  unsigned rest = prefix % 8;
  return rest == 0 || (address[prefix / 8] ^ other[prefix / 8]) >> (8 - rest) == 0;
}

/* Not a step of up: the kernel takes link attributes of a family after the flags (do_setlink() in
 * net/core/rtnetlink.c), when the link has made an address for itself already. */
static void forbid_own_addresses(struct netlink_batch* batch, int index) {
  struct ifinfomsg body = {.ifi_family = AF_UNSPEC, .ifi_index = index};
  netlink_begin(batch, "keep the network card from making addresses", RTM_NEWLINK, NLM_F_ACK, &body,
                sizeof body);
  size_t all = netlink_begin_nest(batch, IFLA_AF_SPEC);
  size_t ipv6 = netlink_begin_nest(batch, AF_INET6);
  uint8_t mode = IN6_ADDR_GEN_MODE_NONE;
  netlink_attribute(batch, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof mode);
  netlink_end_nest(batch, ipv6);
  netlink_end_nest(batch, all);
}

static void bring_up(struct netlink_batch* batch, const struct boot_card* card,
                     const struct network_link* link) {
  struct ifinfomsg body = {
      .ifi_family = AF_UNSPEC, .ifi_index = link->index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
  netlink_begin(batch, "bring the network card up", RTM_NEWLINK, NLM_F_ACK, &body, sizeof body);
  netlink_attribute(batch, IFLA_MTU, &card->mtu, sizeof card->mtu);
  if (!link->named) netlink_attribute(batch, IFLA_IFNAME, CARD_NAME, sizeof CARD_NAME);
}

static void add_address(struct netlink_batch* batch, int index, enum boot_family family,
                        const uint8_t* address, unsigned prefix, uint8_t scope) {
  struct ifaddrmsg body = {.ifa_family = families[family],
                           .ifa_prefixlen = (uint8_t)prefix,
                           .ifa_flags = family == BOOT_IPV6 ? IFA_F_NODAD : 0,
                           .ifa_scope = scope,
                           .ifa_index = (uint32_t)index};
  size_t size = address_sizes[family];
  netlink_begin(batch, "give the network card its address", RTM_NEWADDR,
                NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
  netlink_attribute(batch, IFA_LOCAL, address, size);
  netlink_attribute(batch, IFA_ADDRESS, address, size);
  /* Two addresses and one alone have no broadcast address (RFC 3021). */
  if (family == BOOT_IPV4 && prefix <= 30) {
    uint8_t broadcast[4];
    for (unsigned i = 0; i < sizeof broadcast; i++) {
      unsigned bits = prefix <= 8 * i ? 0 : prefix - 8 * i;
      broadcast[i] = (uint8_t)(address[i] | (bits >= 8 ? 0 : 0xffu >> bits));
    }
    netlink_attribute(batch, IFA_BROADCAST, broadcast, sizeof broadcast);
  }
}

/* To `destination`, or to everywhere, by way of `gateway`, or directly: one of them is NULL. */
static void add_route(struct netlink_batch* batch, int index, enum boot_family family,
                      const uint8_t* destination, const uint8_t* gateway) {
  size_t size = address_sizes[family];
  bool direct = gateway == NULL;
  struct rtmsg body = {.rtm_family = families[family],
                       .rtm_dst_len = direct ? BITS_OF(size) : 0,
                       .rtm_table = RT_TABLE_MAIN,
                       .rtm_protocol = RTPROT_BOOT,
                       .rtm_scope = direct ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
                       .rtm_type = RTN_UNICAST};
  netlink_begin(batch, direct ? "make the route to the gateway" : "make the default route",
                RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &body, sizeof body);
  if (direct) netlink_attribute(batch, RTA_DST, destination, size);
  if (!direct) netlink_attribute(batch, RTA_GATEWAY, gateway, size);
  netlink_attribute(batch, RTA_OIF, &index, sizeof index);
}

static void add_neighbour(struct netlink_batch* batch, int index, enum boot_family family,
                          const struct boot_gateway* gateway) {
  struct ndmsg body = {
      .ndm_family = families[family], .ndm_ifindex = index, .ndm_state = NUD_PERMANENT};
  netlink_begin(batch, "note the gateway's MAC address", RTM_NEWNEIGH,
                NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &body, sizeof body);
  netlink_attribute(batch, NDA_DST, gateway->bytes, address_sizes[family]);
  netlink_attribute(batch, NDA_LLADDR, gateway->mac, sizeof gateway->mac);
}

static bool is_reached_directly(const struct boot_card* card, enum boot_family family) {
  const struct boot_address* address = &card->addresses[family];
  const uint8_t* gateway = card->gateways[family].bytes;
  static const uint8_t link_local[16] = {0xfe, 0x80};
  if (family == BOOT_IPV6 && is_in_prefix(gateway, link_local, LINK_LOCAL_PREFIX)) return true;
  return address->present && is_in_prefix(gateway, address->bytes, address->prefix);
}

void network_configure(const struct boot_card* card, const struct network_link* link,
                       struct netlink_batch* batch) {
  if (link->has_ipv6) forbid_own_addresses(batch, link->index);
  bring_up(batch, card, link);
  if (card->addresses[BOOT_IPV6].present) {
    uint8_t link_local[16];
    link_local_of(card->mac, link_local);
    add_address(batch, link->index, BOOT_IPV6, link_local, LINK_LOCAL_PREFIX, RT_SCOPE_LINK);
  }
  for (enum boot_family family = BOOT_IPV4; family < BOOT_FAMILIES; family++) {
    const struct boot_address* address = &card->addresses[family];
    const struct boot_gateway* gateway = &card->gateways[family];
    if (address->present) {
      add_address(batch, link->index, family, address->bytes, address->prefix, RT_SCOPE_UNIVERSE);
    }
    if (!gateway->present) continue;
    if (!is_reached_directly(card, family)) {
      add_route(batch, link->index, family, gateway->bytes, NULL);
    }
    add_route(batch, link->index, family, NULL, gateway->bytes);
    if (gateway->has_mac) add_neighbour(batch, link->index, family, gateway);
  }
}

struct search {
  const uint8_t* mac;
  struct network_link link; /* index 0: not found */
};

static bool take_link(void* context, const struct nlmsghdr* message) {
  struct search* search = context;
  struct ifinfomsg body;
  size_t fixed = NLMSG_LENGTH(NLMSG_ALIGN(sizeof body));
  if (message->nlmsg_type != RTM_NEWLINK || message->nlmsg_len < fixed) return true;
  memcpy(&body, (const uint8_t*)message + NLMSG_HDRLEN, sizeof body);
  const uint8_t* attributes = (const uint8_t*)message + fixed;
  size_t length = message->nlmsg_len - fixed;
  const struct nlattr* mac = netlink_find(attributes, length, IFLA_ADDRESS);
  if (mac == NULL || netlink_value_length(mac) != BOOT_MAC_SIZE ||
      memcmp(netlink_value(mac), search->mac, BOOT_MAC_SIZE) != 0) {
    return true;
  }
  search->link.index = body.ifi_index;
  const struct nlattr* name = netlink_find(attributes, length, IFLA_IFNAME);
  search->link.named = name != NULL && netlink_value_length(name) == sizeof CARD_NAME &&
                       memcmp(netlink_value(name), CARD_NAME, sizeof CARD_NAME) == 0;
  const struct nlattr* all = netlink_find(attributes, length, IFLA_AF_SPEC);
  search->link.has_ipv6 =
      all != NULL && netlink_find(netlink_value(all), netlink_value_length(all), AF_INET6) != NULL;
  return true; /* to the end, for the answers of the next request come behind it */
}

static bool find_link(int socket, struct search* search, struct failure* failure) {
  struct netlink_batch batch = {0};
  struct ifinfomsg body = {.ifi_family = AF_UNSPEC};
  netlink_begin(&batch, "list the network cards", RTM_GETLINK, NLM_F_DUMP, &body, sizeof body);
  int code = netlink_send(socket, &batch);
  if (code == 0) code = netlink_receive(socket, LINKS_MAX, take_link, search);
  if (code != 0) {
    return fail(failure, MSB_STAGE_BOOT, code, "cannot %s", batch.steps[0]);
  }
  const uint8_t* mac = search->mac;
  return search->link.index != 0 ||
         fail(failure, MSB_STAGE_BOOT, ENODEV,
              "there is no network card with the MAC address %02x:%02x:%02x:%02x:%02x:%02x", mac[0],
              mac[1], mac[2], mac[3], mac[4], mac[5]);
}

/* A directory of /proc, wherever it is mounted or not: the programs' own is mounted meanwhile, by
 * somebody else. */
static int open_proc(void) {
  int context = (int)syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC);
  if (context >= 0 && syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0) {
    int mount = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
    close(context);
    return mount;
  }
  if (context >= 0) close(context);
  return open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/*
 * There is no router to ask for: with a link-local address the kernel would solicit one
 * (addrconf_dad_completed() in net/ipv6/addrconf.c). Netlink has no word for that. Best effort: the
 * solicitations go nowhere.
 */
static void forbid_router_solicitations(void) {
  int proc = open_proc();
  if (proc < 0) return;
  int setting = openat(proc, "sys/net/ipv6/conf/" CARD_NAME "/accept_ra", O_WRONLY | O_CLOEXEC);
  if (setting >= 0) {
    ssize_t ignored = write(setting, "0", 1);
    (void)ignored;
    close(setting);
  }
  close(proc);
}

static bool start(int socket, const struct boot_card* card, struct failure* failure) {
  struct search search = {.mac = card->mac};
  if (!find_link(socket, &search, failure)) return false;
  if (card->addresses[BOOT_IPV6].present) forbid_router_solicitations();
  static struct netlink_batch batch;
  memset(&batch, 0, sizeof batch);
  network_configure(card, &search.link, &batch);
  const char* step = "configure the network card";
  int code = netlink_send(socket, &batch);
  if (code == 0) code = netlink_receive_acknowledgements(socket, &batch, &step);
  return code == 0 || fail(failure, MSB_STAGE_BOOT, code, "cannot %s", step);
}

bool network_start(const struct boot_card* card, struct failure* failure) {
  if (!card->present) return true;
  int socket = netlink_open(NETLINK_ROUTE);
  if (socket < 0) return fail(failure, MSB_STAGE_BOOT, errno, "cannot open a netlink socket");
  bool started = start(socket, card, failure);
  close(socket);
  return started;
}
