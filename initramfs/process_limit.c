/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/process_limit.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "initramfs/mounts.h"
#include "protocol/msb_exec.h"

#define TREE "/groups" /* of the initramfs */
#define GROUP TREE "/sandbox"

/* cgroup.procs of the sandbox's group, opened where the whole tree could be seen. */
static int members = -1;

static bool write_text(const char* path, const char* text) {
  int file = open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return false;
  bool written = write(file, text, strlen(text)) == (ssize_t)strlen(text);
  int code = errno;
  close(file);
  errno = code;
  return written;
}

/* All that there are, so that programs with control groups of their own find them as they would
 * without a limit. Of these "pids" matters here, and its absence is found by its file's. */
static void enable_controllers(void) {
  char names[256];
  int file = open(TREE "/cgroup.controllers", O_RDONLY | O_CLOEXEC);
  ssize_t length = file < 0 ? -1 : read(file, names, sizeof names - 1);
  if (file >= 0) close(file);
  if (length <= 0) return;
  names[length] = '\0';
  char* rest;
  for (char* name = strtok_r(names, " \n", &rest); name != NULL;
       name = strtok_r(NULL, " \n", &rest)) {
    char word[sizeof names + 1];
    snprintf(word, sizeof word, "+%s", name);
    write_text(TREE "/cgroup.subtree_control", word);
  }
}

static bool move_to(int group) {
  return write(group, "0", 1) == 1;
}

/* A namespace begins at the group of who makes it. The agent leaves the group again; its children
 * stay in the namespace. */
static bool make_namespace(void) {
  int own = open(TREE "/cgroup.procs", O_WRONLY | O_CLOEXEC);
  if (own < 0) return false;
  bool made = move_to(members) && unshare(CLONE_NEWCGROUP) == 0 && move_to(own);
  int code = errno;
  close(own);
  errno = code;
  return made;
}

bool process_limit_set(uint32_t processes, struct failure* failure) {
  /* "favordynmods": joining a group must not wait for a grace period of RCU, at each start of a
   * program. */
  if (!mount_at(TREE, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "nsdelegate,favordynmods",
                failure)) {
    return false;
  }
  enable_controllers();
  char text[16];
  snprintf(text, sizeof text, "%u", processes);
  bool set = mkdir(GROUP, 0755) == 0 && write_text(GROUP "/pids.max", text);
  if (set) members = open(GROUP "/cgroup.procs", O_WRONLY | O_CLOEXEC);
  if (!set || members < 0 || !make_namespace() || umount2(TREE, MNT_DETACH) != 0) {
    return fail(failure, MSB_STAGE_BOOT, errno, "cannot limit the sandbox to %u processes",
                processes);
  }
  return true;
}

int process_limit_join(void) {
  return members < 0 || move_to(members) ? 0 : errno;
}
