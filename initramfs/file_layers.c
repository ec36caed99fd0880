/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/file_layers.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct written_file {
  const char* path;
  bool written;
  ino_t inode;
  struct timespec changed;
};

static struct file_layers kept = {.upper = -1, .base = -1};
static const char* made[FILE_LAYERS_MADE_MAX];
static size_t made_count;
static struct written_file written[] = {
    {.path = "/etc/hostname"}, {.path = "/etc/hosts"}, {.path = "/etc/resolv.conf"}};

#define WRITTEN (sizeof written / sizeof *written)

void file_layers_set(const struct file_layers* layers) {
  kept = *layers;
}

const struct file_layers* file_layers_get(void) {
  return &kept;
}

unsigned file_layers_move(unsigned first) {
  if (kept.upper < 0) return first;
  /* Out of the way first, so that neither lands on the other's place. */
  int upper = fcntl(kept.upper, F_DUPFD_CLOEXEC, (int)first + FILE_LAYERS_DESCRIPTORS);
  int base = fcntl(kept.base, F_DUPFD_CLOEXEC, (int)first + FILE_LAYERS_DESCRIPTORS);
  bool moved =
      dup3(upper, (int)first, O_CLOEXEC) >= 0 && dup3(base, (int)first + 1, O_CLOEXEC) >= 0;
  kept.upper = moved ? (int)first : -1;
  kept.base = (int)first + 1;
  return moved ? first + FILE_LAYERS_DESCRIPTORS : first;
}

void file_layers_made(const char* path) {
  if (made_count < FILE_LAYERS_MADE_MAX) made[made_count++] = path;
}

bool file_layers_is_made(const char* path) {
  size_t length = strlen(path);
  for (size_t i = 0; i < made_count; i++) {
    const char* name = made[i] + strspn(made[i], "/");
    if (strncmp(name, path, length) == 0 && (name[length] == '\0' || name[length] == '/')) {
      return true;
    }
  }
  return false;
}

void file_layers_wrote(const char* path) {
  for (size_t i = 0; i < WRITTEN; i++) {
    struct written_file* file = &written[i];
    struct stat status;
    if (strcmp(file->path, path) == 0 && lstat(path, &status) == 0) {
      file->written = true;
      file->inode = status.st_ino;
      file->changed = status.st_ctim;
    }
  }
}

bool file_layers_is_as_written(const char* path) {
  for (size_t i = 0; i < WRITTEN; i++) {
    const struct written_file* file = &written[i];
    struct stat status;
    if (file->written && strcmp(file->path + 1, path) == 0) {
      return lstat(file->path, &status) == 0 && status.st_ino == file->inode &&
             status.st_ctim.tv_sec == file->changed.tv_sec &&
             status.st_ctim.tv_nsec == file->changed.tv_nsec;
    }
  }
  return false;
}
