/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/socket_owner.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "initramfs/socket_lookup.h"
#include "initramfs/text_lines.h"

/* "socket:[4294967295]" */
#define LINK_SIZE 32

/* What is still to be looked at. */
struct budget {
  unsigned processes;
  unsigned descriptors;
};

static DIR* open_directory(int parent, const char* path) {
  int descriptor = openat(parent, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0) return NULL;
  DIR* directory = fdopendir(descriptor);
  if (directory == NULL) close(descriptor);
  return directory;
}

static bool has_link(DIR* descriptors, const char* wanted, struct budget* budget) {
  const struct dirent* entry;
  while ((entry = readdir(descriptors)) != NULL && budget->descriptors > 0) {
    if (*entry->d_name == '.') continue;
    budget->descriptors--;
    char link[LINK_SIZE];
    ssize_t length = readlinkat(dirfd(descriptors), entry->d_name, link, sizeof link - 1);
    if (length < 0) continue;
    link[length] = '\0';
    if (strcmp(link, wanted) == 0) return true;
  }
  return false;
}

static bool take_name(void* context, const char* line) {
  struct socket_owner* owner = context;
  snprintf(owner->name, sizeof owner->name, "%.15s", line);
  return false;
}

static bool is_owner(int proc, const char* pid, const char* wanted, struct budget* budget) {
  char path[LINK_SIZE];
  snprintf(path, sizeof path, "%.10s/fd", pid);
  DIR* descriptors = open_directory(proc, path);
  if (descriptors == NULL) return false;
  bool found = has_link(descriptors, wanted, budget);
  closedir(descriptors);
  return found;
}

static uint32_t find_process(DIR* proc, const char* wanted) {
  struct budget budget = {.processes = SOCKET_OWNER_PROCESSES_MAX,
                          .descriptors = SOCKET_OWNER_DESCRIPTORS_MAX};
  const struct dirent* entry;
  while ((entry = readdir(proc)) != NULL && budget.processes > 0 && budget.descriptors > 0) {
    const char* rest = entry->d_name;
    uint64_t pid;
    if (!text_take_number(&rest, &pid) || *rest != '\0' || pid > INT32_MAX) continue;
    budget.processes--;
    if (is_owner(dirfd(proc), entry->d_name, wanted, &budget)) return (uint32_t)pid;
  }
  return 0;
}

bool socket_owner_find(const struct msb_socket* ends, struct socket_owner* owner) {
  struct socket_found found;
  if (!socket_lookup(ends, &found)) return false;
  DIR* proc = open_directory(AT_FDCWD, "/proc");
  if (proc == NULL) return false;
  char wanted[LINK_SIZE];
  snprintf(wanted, sizeof wanted, "socket:[%u]", found.inode);
  uint32_t pid = find_process(proc, wanted);
  closedir(proc);
  if (pid == 0) return false;
  *owner = (struct socket_owner){.fields = {.pid = pid, .user = found.user}};
  char path[LINK_SIZE];
  snprintf(path, sizeof path, "/proc/%u/comm", pid);
  text_read(path, take_name, owner);
  return true;
}
