/* SPDX-License-Identifier: Apache-2.0 */
/* What the boot file says of names, written to where programs look: at boot, once. SET_NAMES
 * (names.h) may change it later. */
#ifndef MSB_INITRAMFS_NAME_FILES_H
#define MSB_INITRAMFS_NAME_FILES_H

#include <stdbool.h>

#include "initramfs/boot_config.h"
#include "initramfs/buffer.h"
#include "initramfs/failure.h"

/* The content of /etc/resolv.conf and of /etc/hosts. False without memory. */
bool name_files_resolver(const struct boot_network* network, struct buffer* text);
bool name_files_hosts(const struct boot_config* config, struct buffer* text);

/*
 * Names the machine, for the kernel and in /etc/hostname; writes /etc/hosts when the image has
 * none, or when the boot file has hosts; writes /etc/resolv.conf when it has nameservers. An /etc
 * that is missing is made for hosts and nameservers only. False, with the first thing that failed,
 * when an image has something strange there: all the rest was done.
 */
bool name_files_write(const struct boot_config* config, struct failure* failure);

#endif
