/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/file_path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "protocol/msb_exec.h"

/* include/uapi/asm-generic/unistd.h; newer than the C libraries. */
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

/* Symbolic links in a row; the kernel's own limit (path_resolution(7)). */
#define LINKS_MAX 40

void file_place_close(struct file_place* place) {
  if (place->directory >= 0) close(place->directory);
  place->directory = -1;
}

/* Opens the directory of `text`, as seen from the place's, and takes the name. Returns an errno. */
static int step(struct file_place* place, char* text) {
  char* slash = strrchr(text, '/');
  char* name = slash == NULL ? text : slash + 1;
  size_t length = strlen(name);
  if (length == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return EISDIR;
  if (length > NAME_MAX) return ENAMETOOLONG;
  memcpy(place->name, name, length + 1);
  const char* directory = slash == NULL ? "." : text;
  if (slash == text) directory = "/";
  if (slash != NULL) *slash = '\0';
  int descriptor = openat(place->directory, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return errno;
  file_place_close(place);
  place->directory = descriptor;
  return 0;
}

static int find_place(struct file_place* place, const char* path, bool follow) {
  char text[PATH_MAX];
  size_t length = strlen(path);
  if (length >= sizeof text) return ENAMETOOLONG;
  memcpy(text, path, length + 1);
  for (int links = 0; links <= LINKS_MAX; links++) {
    int code = step(place, text);
    if (code != 0 || !follow) return code;
    ssize_t n = readlinkat(place->directory, place->name, text, sizeof text - 1);
    /* No symbolic link, or nothing at all. */
    if (n < 0) return errno == EINVAL || errno == ENOENT ? 0 : errno;
    text[n] = '\0';
  }
  return ELOOP;
}

bool file_place_open(struct file_place* place, const char* path, bool follow,
                     struct failure* failure) {
  place->directory = -1;
  int code = find_place(place, path, follow);
  if (code == 0) return true;
  file_place_close(place);
  return fail(failure, MSB_STAGE_FILE, code, "cannot find the directory of %.300s", path);
}

static bool make_directory(const char* path, uint32_t user, uint32_t group,
                           struct failure* failure) {
  if (mkdir(path, 0755) == 0) {
    if (lchown(path, user, group) == 0) return true;
    return fail(failure, MSB_STAGE_FILE, errno, "cannot give %.300s its owner", path);
  }
  /* Also what is there and cannot be made, for want of a right or on a read-only file system. */
  struct stat status;
  int code = errno;
  if (stat(path, &status) == 0) {
    if (S_ISDIR(status.st_mode)) return true;
    code = ENOTDIR;
  }
  return fail(failure, MSB_STAGE_FILE, code, "cannot make the directory %.300s", path);
}

bool file_make_parents(const char* path, bool itself, uint32_t user, uint32_t group,
                       struct failure* failure) {
  char text[PATH_MAX];
  size_t length = strlen(path);
  if (length >= sizeof text) {
    return fail(failure, MSB_STAGE_FILE, ENAMETOOLONG, "cannot make the directories of %.300s",
                path);
  }
  memcpy(text, path, length + 1);
  for (char* slash = strchr(text + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    bool is_last = slash[strspn(slash, "/")] == '\0';
    if (is_last && !itself) break;
    *slash = '\0';
    bool made = make_directory(text, user, group, failure);
    *slash = '/';
    if (!made) return false;
  }
  return !itself || make_directory(text, user, group, failure);
}

int file_change_mode(int directory, const char* name, mode_t mode) {
  if (syscall(SYS_fchmodat2, directory, name, mode, AT_SYMLINK_NOFOLLOW) == 0) return 0;
  if (errno != ENOSYS) return -1;
  /* Before Linux 6.6 the C library does it through /proc, which a guest's kernel never needs. */
  return fchmodat(directory, name, mode, AT_SYMLINK_NOFOLLOW);
}

bool file_sync_parent(const char* path, struct failure* failure) {
  struct file_place place;
  if (!file_place_open(&place, path, true, failure)) return false;
  bool synced = fsync(place.directory) == 0;
  int code = errno;
  file_place_close(&place);
  return synced || fail(failure, MSB_STAGE_FILE, code, "cannot sync the directory of %.300s", path);
}
