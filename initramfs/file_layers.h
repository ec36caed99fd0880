/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the root is stacked of, for the file service alone: the writable layer, what is below it,
 * and what the init itself made in the one. No path leads to it.
 */
#ifndef MSB_INITRAMFS_FILE_LAYERS_H
#define MSB_INITRAMFS_FILE_LAYERS_H

#include <stdbool.h>
#include <stddef.h>

/* Names that the init makes where the image has none, absolute: the boot file's volumes and shares.
 */
#define FILE_LAYERS_MADE_MAX 256u

struct file_layers {
  int upper; /* the writable layer's root directory, O_RDONLY; -1: there are no layers */
  int base;  /* what `open_lower` starts from */
  /* Opens the root directory of all that is below the writable layer, as one. The working directory
   * is lost. Returns -1, and errno. */
  int (*open_lower)(int base);
};

void file_layers_set(const struct file_layers* layers);
const struct file_layers* file_layers_get(void);

#define FILE_LAYERS_DESCRIPTORS 2

/* Gives their descriptors the numbers from `first` on, whatever was there. Returns the number
 * behind. */
unsigned file_layers_move(unsigned first);

/* A directory, or an empty file to mount something on, that the init makes. `path` stays valid;
 * beyond the limit it is forgotten. */
void file_layers_made(const char* path);
/* Whether `path`, relative to the root, is one of these or leads to one. */
bool file_layers_is_made(const char* path);

/* The init has written the file, one of those in /etc: as it is now, it is no change of the
 * sandbox's, also for the init of a later boot. */
void file_layers_wrote(int file);
/* Whether it is one of /etc/hostname, hosts and resolv.conf, and as the init has written it, in
 * this boot or an earlier one. `path`: absolute, or relative to the root, which is the working
 * directory then. */
bool file_layers_is_as_written(const char* path);

#endif
