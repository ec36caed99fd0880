/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/proc.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATH_SIZE 64

/* A mount of its own, which is at no path and has nothing mounted below it; or -1. */
static int kept = -1;

void proc_keep(void) {
  kept = (int)syscall(SYS_open_tree, AT_FDCWD, "/proc", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

/* From the directory that is returned. */
static int locate(const char* path, char located[PATH_SIZE]) {
  snprintf(located, PATH_SIZE, kept >= 0 ? "%s" : "/proc/%s", path);
  return kept >= 0 ? kept : AT_FDCWD;
}

int proc_open_directory(const char* path) {
  char located[PATH_SIZE];
  int from = locate(path, located);
  return openat(from, located, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

void proc_read(const char* path, line_taker take, void* context) {
  char located[PATH_SIZE];
  int from = locate(path, located);
  text_read(from, located, take, context);
}
