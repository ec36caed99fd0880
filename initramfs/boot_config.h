/* SPDX-License-Identifier: Apache-2.0 */
/* The boot file of protocol/msb_boot.h, parsed. No I/O. */
#ifndef MSB_INITRAMFS_BOOT_CONFIG_H
#define MSB_INITRAMFS_BOOT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/boot_network.h"
#include "initramfs/failure.h"

/* What overlayfs stacks at most (OVL_MAX_STACK in fs/overlayfs/params.h). */
#define BOOT_LAYERS_MAX 500u
#define BOOT_VOLUMES_MAX 128u
#define BOOT_SHARES_MAX 64u

struct boot_share {
  bool read_only;
  const char* path;   /* relative to the virtio-fs root */
  const char* target; /* an absolute path in the sandbox */
  int mount;          /* detached; from shares_open() to shares_mount() */
};

struct boot_config {
  const char* hostname; /* NULL when the host names none */
  uint32_t processes;   /* 0: as many as there is memory for */
  const char* upper;    /* the writable layer's block device, "vda" to "vdz"; NULL: in memory */
  size_t layer_count;
  const char* layers[BOOT_LAYERS_MAX]; /* lowest first, relative to the virtio-fs root */
  const char* root; /* instead of layers, or NULL; relative to the virtio-fs root */
  size_t share_count;
  struct boot_share shares[BOOT_SHARES_MAX];
  size_t volume_count;
  const char* volumes[BOOT_VOLUMES_MAX]; /* absolute paths in the sandbox */
  struct boot_network network;
};

/*
 * Parses `text` in place; `config` points into it afterwards. text[length] must be writable (it
 * becomes a terminator). Fails with MSB_STAGE_BOOT, EINVAL or E2BIG, and the number of the
 * offending line.
 */
bool boot_config_parse(char* text, size_t length, struct boot_config* config,
                       struct failure* failure);

#endif
