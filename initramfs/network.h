/* SPDX-License-Identifier: Apache-2.0 */
/* Brings the network card up, as the boot file says. */
#ifndef MSB_INITRAMFS_NETWORK_H
#define MSB_INITRAMFS_NETWORK_H

#include <stdbool.h>

#include "initramfs/boot_network.h"
#include "initramfs/failure.h"
#include "initramfs/netlink.h"

/* The card as the kernel has it. */
struct network_link {
  int index;
  bool named;    /* it is eth0 already */
  bool has_ipv6; /* the kernel does IPv6 on it */
};

/* The messages that configure the card, in the order in which the kernel has to take them. */
void network_configure(const struct boot_card* card, const struct network_link* link,
                       struct netlink_batch* batch);

/*
 * Does nothing without a card in the boot file. When it returns, addresses can be used: nobody
 * waits for the detection of duplicates or for a router. Fails with MSB_STAGE_BOOT.
 */
bool network_start(const struct boot_card* card, struct failure* failure);

#endif
