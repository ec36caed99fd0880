/* SPDX-License-Identifier: Apache-2.0 */
/* Paths of file requests: from the root, symbolic links followed as the guest has them. */
#ifndef MSB_INITRAMFS_FILE_PATH_H
#define MSB_INITRAMFS_FILE_PATH_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "initramfs/failure.h"

/* A directory and a name in it, which nothing need have yet. */
struct file_place {
  int directory; /* -1: none */
  char name[NAME_MAX + 1];
};

/* Where `path` is. With `follow`, where the symbolic links lead that are at its end. */
bool file_place_open(struct file_place* place, const char* path, bool follow,
                     struct failure* failure);
void file_place_close(struct file_place* place);

/*
 * Makes the directories above `path` that are missing: mode 0755, owned by `user` and `group`, each
 * UINT32_MAX to leave it. With `itself`, the last component as well.
 */
bool file_make_parents(const char* path, bool itself, uint32_t user, uint32_t group,
                       struct failure* failure);

/* chmod(2) of a name in a directory that follows no symbolic link. */
int file_change_mode(int directory, const char* name, mode_t mode);

/* fsync(2) of the directory that `path` is in. */
bool file_sync_parent(const char* path, struct failure* failure);

#endif
