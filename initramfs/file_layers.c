/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/file_layers.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* With what stamp_of() says. Of the sandbox only root can set it, and so could hide a change. */
#define STAMP "trusted.msb.written"
#define STAMP_SIZE 24u
/* Longer files of the init's there are none. */
#define CONTENT_MAX 65536u

static struct file_layers kept = {.upper = -1, .base = -1};
static const char* made[FILE_LAYERS_MADE_MAX];
static size_t made_count;
/* What the init writes. */
static const char* const written[] = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"};

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

/* What is in it, as a number (FNV-1a of 64 bits). False for what is no regular file, or too long.
 */
static bool stamp_of(int file, char* stamp) {
  static char content[CONTENT_MAX];
  struct stat status;
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) return false;
  ssize_t length = pread(file, content, sizeof content, 0);
  if (length < 0 || length != status.st_size) return false;
  uint64_t hash = 0xcbf29ce484222325u;
  for (ssize_t i = 0; i < length; i++) {
    hash = (hash ^ (uint8_t)content[i]) * 0x100000001b3u;
  }
  snprintf(stamp, STAMP_SIZE, "%016llx", (unsigned long long)hash);
  return true;
}

void file_layers_wrote(int file) {
  char stamp[STAMP_SIZE];
  /* Without it, on a file system of the host's for example, the file shows as changed. */
  if (stamp_of(file, stamp)) fsetxattr(file, STAMP, stamp, strlen(stamp), 0);
}

bool file_layers_is_as_written(const char* path) {
  bool ours = false;
  for (size_t i = 0; i < sizeof written / sizeof *written && !ours; i++) {
    ours = strcmp(written[i] + (*path == '/' ? 0 : 1), path) == 0;
  }
  if (!ours) return false;
  int file = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC);
  if (file < 0) return false;
  char stamp[STAMP_SIZE];
  char then[STAMP_SIZE];
  ssize_t length = fgetxattr(file, STAMP, then, sizeof then);
  bool same = length > 0 && stamp_of(file, stamp) && (size_t)length == strlen(stamp) &&
              memcmp(stamp, then, (size_t)length) == 0;
  close(file);
  return same;
}
