/* SPDX-License-Identifier: Apache-2.0 */
/* The boot file of protocol/msb_boot.h, parsed. No I/O. */
#ifndef MSB_INITRAMFS_BOOT_CONFIG_H
#define MSB_INITRAMFS_BOOT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "initramfs/failure.h"

/* What overlayfs stacks at most (OVL_MAX_STACK in fs/overlayfs/params.h). */
#define BOOT_LAYERS_MAX 500u
#define BOOT_VOLUMES_MAX 128u

struct boot_config {
  const char* hostname; /* NULL when the host names none */
  size_t layer_count;
  const char* layers[BOOT_LAYERS_MAX]; /* lowest first, relative to the virtio-fs root */
  size_t volume_count;
  const char* volumes[BOOT_VOLUMES_MAX]; /* absolute paths in the sandbox */
};

/*
 * Parses `text` in place; `config` points into it afterwards. text[length] must be writable (it
 * becomes a terminator). Fails with MSB_STAGE_BOOT, EINVAL or E2BIG, and the number of the
 * offending line.
 */
bool boot_config_parse(char* text, size_t length, struct boot_config* config,
                       struct failure* failure);

#endif
