/* SPDX-License-Identifier: Apache-2.0 */
/* The host's directories and files, at their places in the sandbox. */
#ifndef MSB_INITRAMFS_SHARES_H
#define MSB_INITRAMFS_SHARES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/boot_config.h"
#include "initramfs/failure.h"
#include "initramfs/namespace.h"

/* Takes hold of the mounted virtio-fs device at `host`, and of what is shared below it, while they
 * can still be reached by a name. */
bool shares_open(struct boot_config* config, const char* host, struct failure* failure);

/* Puts each at its place, from inside the root. What is missing there is made: directories with
 * mode 0755, or an empty file for a file. */
bool shares_mount(struct boot_config* config, struct failure* failure);

/* While programs run: do what SHARE and UNSHARE ask for (docs/exec-protocol.md), in a child beside
 * `programs`, whose `restored` is set. False with `failure` filled in. */
bool shares_add(const uint8_t* payload, size_t length, struct namespace_beside* programs,
                struct failure* failure);
bool shares_remove(const uint8_t* payload, size_t length, struct namespace_beside* programs,
                   struct failure* failure);

#endif
