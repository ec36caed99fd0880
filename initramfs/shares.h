/* SPDX-License-Identifier: Apache-2.0 */
/* The host's directories and files, at their places in the sandbox. */
#ifndef MSB_INITRAMFS_SHARES_H
#define MSB_INITRAMFS_SHARES_H

#include <stdbool.h>

#include "initramfs/boot_config.h"
#include "initramfs/failure.h"

/* Takes hold of what is shared, below the mounted virtio-fs device at `host`, while it can still be
 * reached. */
bool shares_open(struct boot_config* config, const char* host, struct failure* failure);

/* Puts each at its place, from inside the root. What is missing there is made: directories with
 * mode 0755, or an empty file for a file. */
bool shares_mount(struct boot_config* config, struct failure* failure);

#endif
