/* SPDX-License-Identifier: Apache-2.0 */
/* The root file system: the host's layer images, or a directory of the host's, with a writable
 * layer on top, in memory or on a disk. */
#ifndef MSB_INITRAMFS_ROOT_H
#define MSB_INITRAMFS_ROOT_H

#include <stdbool.h>

#include "initramfs/boot_config.h"
#include "initramfs/failure.h"

/* Mounts the host's virtio-fs device and reads the boot file from it. `config` points into static
 * memory. */
bool root_open_host(struct boot_config* config, struct failure* failure);

/*
 * Mounts and stacks the layers, takes hold of the shares, and makes the result the root of this
 * process. Nothing of what lies below it can be reached by a path afterwards: not the host's files,
 * not the single layers, not the initramfs.
 */
bool root_enter(struct boot_config* config, struct failure* failure);

/* Makes the image's volumes (config.md, "Volumes") that are missing, mode 0755, with their parents.
 * What is there stays as it is. Inside the root, wherever its symbolic links lead. */
bool root_make_volumes(const struct boot_config* config, struct failure* failure);

#endif
