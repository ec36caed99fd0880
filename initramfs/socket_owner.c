/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/socket_owner.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "initramfs/clock.h"
#include "initramfs/proc.h"
#include "initramfs/socket_lookup.h"
#include "initramfs/text_lines.h"

/* "socket:[4294967295]" */
#define LINK_SIZE 32

/* Looked at whatever the time is: a small machine is never too slow for its few processes. */
#define LOOKED_AT_LEAST 512u

struct search {
  char wanted[LINK_SIZE];
  uint32_t user;
  long until_ms;
  /* What is still to be looked at, and what was. */
  unsigned processes;
  unsigned descriptors;
  unsigned looked_at;
};

static bool goes_on(const struct search* search) {
  return search->processes > 0 && search->descriptors > 0 &&
         (search->looked_at < LOOKED_AT_LEAST || clock_now_ms() < search->until_ms);
}

static DIR* as_directory(int descriptor) {
  if (descriptor < 0) return NULL;
  DIR* directory = fdopendir(descriptor);
  if (directory == NULL) close(descriptor);
  return directory;
}

static bool has_link(DIR* descriptors, struct search* search) {
  const struct dirent* entry;
  unsigned left = SOCKET_OWNER_DESCRIPTORS_OF_ONE_MAX;
  while (left > 0 && goes_on(search) && (entry = readdir(descriptors)) != NULL) {
    if (*entry->d_name == '.') continue;
    left--;
    search->descriptors--;
    search->looked_at++;
    char link[LINK_SIZE];
    ssize_t length = readlinkat(dirfd(descriptors), entry->d_name, link, sizeof link - 1);
    if (length < 0) continue;
    link[length] = '\0';
    if (strcmp(link, search->wanted) == 0) return true;
  }
  return false;
}

static bool take_name(void* context, const char* line) {
  struct socket_owner* owner = context;
  snprintf(owner->name, sizeof owner->name, "%.15s", line);
  return false;
}

static bool is_owner(int proc, const char* pid, struct search* search) {
  char path[LINK_SIZE];
  snprintf(path, sizeof path, "%.10s/fd", pid);
  int opened = openat(proc, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR* descriptors = as_directory(opened);
  if (descriptors == NULL) return false;
  bool found = has_link(descriptors, search);
  closedir(descriptors);
  return found;
}

static bool belongs_to(int proc, const char* pid, uint32_t user) {
  struct stat attributes;
  return fstatat(proc, pid, &attributes, AT_SYMLINK_NOFOLLOW) == 0 && attributes.st_uid == user;
}

static uint32_t find_process(DIR* proc, bool of_user, struct search* search) {
  const struct dirent* entry;
  search->processes = SOCKET_OWNER_PROCESSES_MAX;
  rewinddir(proc);
  while (goes_on(search) && (entry = readdir(proc)) != NULL) {
    const char* rest = entry->d_name;
    uint64_t pid;
    if (!text_take_number(&rest, &pid) || *rest != '\0' || pid > INT32_MAX) continue;
    search->processes--;
    search->looked_at++;
    if (belongs_to(dirfd(proc), entry->d_name, search->user) == of_user &&
        is_owner(dirfd(proc), entry->d_name, search)) {
      return (uint32_t)pid;
    }
  }
  return 0;
}

bool socket_owner_find(const struct msb_socket* ends, long until_ms, struct socket_owner* owner) {
  struct socket_found found;
  if (!socket_lookup(ends, &found)) return false;
  DIR* proc = as_directory(proc_open_directory("."));
  if (proc == NULL) return false;
  struct search search = {
      .user = found.user, .until_ms = until_ms, .descriptors = SOCKET_OWNER_DESCRIPTORS_MAX};
  snprintf(search.wanted, sizeof search.wanted, "socket:[%u]", found.inode);
  uint32_t pid = find_process(proc, true, &search);
  if (pid == 0) pid = find_process(proc, false, &search);
  closedir(proc);
  if (pid == 0) return false;
  *owner = (struct socket_owner){.fields = {.pid = pid, .user = found.user}};
  char path[LINK_SIZE];
  snprintf(path, sizeof path, "%u/comm", pid);
  proc_read(path, take_name, owner);
  return true;
}
