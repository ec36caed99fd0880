/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/unpack_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_beneath(int directory, const char* path, uint64_t flags) {
  struct open_how how = {.flags = flags | O_DIRECTORY | O_CLOEXEC,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
  return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

void unpack_directory_open(struct unpack_directory* directory, int root, uint32_t user,
                           uint32_t group) {
  directory->user = user;
  directory->group = group;
  directory->depth = 0;
  directory->path[0] = '\0';
  directory->levels[0] = (struct unpack_level){.descriptor = root};
}

int unpack_directory_descriptor(const struct unpack_directory* directory) {
  return directory->levels[directory->depth].descriptor;
}

void unpack_directory_set_modified(struct unpack_directory* directory, struct timespec modified) {
  directory->levels[directory->depth].has_modified = true;
  directory->levels[directory->depth].modified = modified;
}

/* Returns 0, or an errno. */
static int leave(struct unpack_directory* directory) {
  struct unpack_level* level = &directory->levels[directory->depth];
  int code = 0;
  if (level->has_modified) {
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, level->modified};
    if (futimens(level->descriptor, times) != 0) code = errno;
  }
  close(level->descriptor);
  return code;
}

int unpack_directory_close(struct unpack_directory* directory) {
  int code = leave(directory);
  while (directory->depth > 0) {
    directory->depth--;
    int next = leave(directory);
    if (code == 0) code = next;
  }
  return code;
}

/* Makes the directory and gives it to whom everything is given. */
static int make(const struct unpack_directory* directory, int parent, const char* name) {
  if (mkdirat(parent, name, 0755) != 0) return errno == EEXIST ? 0 : errno;
  if (fchownat(parent, name, directory->user, directory->group, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno;
  }
  return 0;
}

/* Goes into `name`, which ends the path of `length` bytes. */
static int enter(struct unpack_directory* directory, const char* name, size_t length) {
  if (directory->depth + 1 == FILE_TREE_DEPTH_MAX) return ELOOP;
  int parent = unpack_directory_descriptor(directory);
  int descriptor = open_beneath(parent, name, O_RDONLY);
  if (descriptor < 0 && errno == ENOENT) {
    int code = make(directory, parent, name);
    if (code != 0) return code;
    descriptor = open_beneath(parent, name, O_RDONLY);
  }
  if (descriptor < 0) return errno;
  directory->levels[++directory->depth] =
      (struct unpack_level){.descriptor = descriptor, .path_length = (uint32_t)length};
  return 0;
}

/* Whether the directory of `level` is `path` itself or above it. */
static bool leads_to(const struct unpack_directory* directory, const struct unpack_level* level,
                     const char* path, size_t length) {
  size_t own = level->path_length;
  if (own > length || memcmp(directory->path, path, own) != 0) return false;
  return own == 0 || own == length || path[own] == '/';
}

int unpack_directory_go(struct unpack_directory* directory, const char* path, size_t length) {
  if (length >= sizeof directory->path) return ENAMETOOLONG;
  uint32_t common = 0;
  while (common < directory->depth &&
         leads_to(directory, &directory->levels[common + 1], path, length)) {
    common++;
  }
  while (directory->depth > common) {
    int code = leave(directory);
    directory->depth--;
    if (code != 0) return code;
  }
  memcpy(directory->path, path, length);
  directory->path[length] = '\0';
  size_t at = directory->levels[common].path_length;
  while (at < length) {
    if (at > 0) at++;
    char* name = directory->path + at;
    at += strcspn(name, "/");
    char end = directory->path[at];
    directory->path[at] = '\0';
    int code = enter(directory, name, at);
    directory->path[at] = end;
    if (code != 0) return code;
  }
  return 0;
}

/* In pieces, for a path may be longer than one is to the kernel. */
int unpack_directory_open_beneath(const struct unpack_directory* directory, const char* path,
                                  size_t length) {
  int descriptor = open_beneath(directory->levels[0].descriptor, ".", O_PATH);
  while (length > 0 && descriptor >= 0) {
    char piece[PATH_MAX];
    size_t size = length;
    if (size >= sizeof piece) {
      size = sizeof piece - 1;
      while (size > 0 && path[size] != '/') size--;
    }
    /* No name is so long that there is no slash. */
    memcpy(piece, path, size);
    piece[size] = '\0';
    int next = size == 0 ? -1 : open_beneath(descriptor, piece, O_PATH);
    int code = size == 0 ? ENAMETOOLONG : errno;
    close(descriptor);
    errno = code;
    descriptor = next;
    size_t taken = size < length ? size + 1 : size;
    path += taken;
    length -= taken;
  }
  return descriptor;
}
