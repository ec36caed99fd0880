/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where UNPACK is: the directories from the one it unpacks into down to that of the current entry,
 * one descriptor each. Every one was opened from the one above it as openat2(2) with
 * RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS does it, so that no name of the stream leads out.
 *
 * A directory's time of modification is set when the stream leaves it, for whatever is made in it
 * changes it. Streams go depth first. In one that does not, a directory that it comes back to ends
 * with the time at which it did.
 */
#ifndef MSB_INITRAMFS_UNPACK_DIRECTORY_H
#define MSB_INITRAMFS_UNPACK_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "initramfs/file_tree.h"

/* Bytes of a path with its 0 byte. */
#define UNPACK_PATH_MAX FILE_TREE_PATH_MAX

struct unpack_level {
  int descriptor;
  uint32_t path_length;
  bool has_modified;
  struct timespec modified; /* to be set when it is left */
};

struct unpack_directory {
  uint32_t user; /* of directories that the stream does not mention; UINT32_MAX: the agent's own */
  uint32_t group;
  uint32_t depth; /* of the innermost level; 0 is the root */
  char path[UNPACK_PATH_MAX];
  struct unpack_level levels[FILE_TREE_DEPTH_MAX];
};

/* Takes over `root`. */
void unpack_directory_open(struct unpack_directory* directory, int root, uint32_t user,
                           uint32_t group);

/* The innermost directory's descriptor. */
int unpack_directory_descriptor(const struct unpack_directory* directory);

/* Goes to the directory with the normalised path, by way of the nearest common one, and makes what
 * is missing. Returns 0, or an errno; ELOOP or ENOTDIR for a symbolic link on the way. */
int unpack_directory_go(struct unpack_directory* directory, const char* path, size_t length);

/* Sets the innermost directory's time when it is left. */
void unpack_directory_set_modified(struct unpack_directory* directory, struct timespec modified);

/* Leaves all directories. Returns 0, or an errno. */
int unpack_directory_close(struct unpack_directory* directory);

/*
 * Opens a directory below the root by its normalised path, "" for itself, wherever the innermost
 * one is. Returns the descriptor, good for *at() calls only, or -1 with errno.
 */
int unpack_directory_open_beneath(const struct unpack_directory* directory, const char* path,
                                  size_t length);

#endif
