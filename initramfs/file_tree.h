/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything below a directory, one entry after another, a directory before what is in it. Memory
 * is bounded: one descriptor per level and a few buffers of names. No path is ever longer than one
 * name to the kernel and no symbolic link is followed, so that whoever renames things meanwhile
 * leads nowhere else.
 */
#ifndef MSB_INITRAMFS_FILE_TREE_H
#define MSB_INITRAMFS_FILE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "initramfs/failure.h"
#include "protocol/msb_exec.h"

/* Deeper is an error. One descriptor each: file_tree_raise_limit(). */
#define FILE_TREE_DEPTH_MAX 4096u
/* Bytes of a path below the directory, with its 0 byte: what an ENTRY holds. */
#define FILE_TREE_PATH_MAX (MSB_MAX_REQUEST - (uint32_t)sizeof(struct msb_file_entry))

#define FILE_TREE_BUFFERS 16u
#define FILE_TREE_BUFFER_SIZE (16u * 1024u)

struct file_tree_level {
  int descriptor;
  uint32_t path_length; /* of the directory's own path */
  dev_t device;
  int64_t next;      /* where reading goes on, should the buffer be lost */
  uint32_t position; /* in the buffer */
  uint32_t filled;
};

struct file_tree {
  /* The current entry. */
  const char* name; /* part of `path` */
  int directory;    /* that it is in */
  struct stat status;
  char path[FILE_TREE_PATH_MAX]; /* relative to the directory that the walk began with */

  const char* root_path; /* for messages */
  uint32_t depth;        /* levels that are open */
  uint32_t depth_max;
  bool restarts;
  bool enters; /* the current entry is a directory to go into next */
  struct file_tree_level levels[FILE_TREE_DEPTH_MAX];
  uint32_t owners[FILE_TREE_BUFFERS]; /* depth of the level whose names a buffer holds */
  _Alignas(uint64_t) uint8_t buffers[FILE_TREE_BUFFERS][FILE_TREE_BUFFER_SIZE];
};

enum file_tree_step {
  FILE_TREE_END,
  FILE_TREE_ENTRY,
  FILE_TREE_LEAVE, /* all that is below a directory has been; `status` is not valid */
  FILE_TREE_FAILED
};

/* Lets this process open as many files as the deepest tree needs, if it may. */
void file_tree_raise_limit(void);

/*
 * Starts below `directory`, a descriptor that the tree closes, also when this fails. `root_path`
 * stays valid. `depth_max` levels of entries, 0 for all. `restarts`: entries vanish as they come,
 * so that a directory is read from its start after each visit to another.
 */
bool file_tree_open(struct file_tree* tree, int directory, const char* root_path,
                    uint64_t depth_max, bool restarts, struct failure* failure);

/* What vanishes meanwhile is left out, and so is what is below mount points of the kernel's own
 * file systems (proc, sysfs). */
enum file_tree_step file_tree_next(struct file_tree* tree, struct failure* failure);

/* Ends it; needed also after FILE_TREE_END. */
void file_tree_close(struct file_tree* tree);

/* Fails with `code` on the current entry. */
bool file_tree_fail(const struct file_tree* tree, int code, const char* verb,
                    struct failure* failure);

#endif
