/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DIFF: what the sandbox changed of its image, read from its writable layer as overlayfs keeps it
 * (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "initramfs/file_layers.h"
#include "initramfs/file_operations.h"
#include "initramfs/file_tree.h"
#include "initramfs/mount_root.h"

#define NAMES_SIZE 16384u

struct file_diff {
  struct file_operation* operation;
  struct file_tree* tree; /* of the writable layer */
  int lower;
  /* Directories on the way to the current entry that were told, from the top: the others are when
   * something below them is. */
  bool told[FILE_TREE_DEPTH_MAX + 1];
  uint8_t change[FILE_TREE_DEPTH_MAX + 1];
  /* The level of entries at which an opaque directory is, below which nothing of the image shows;
   * 0: none. */
  uint32_t opaque_level;
};

/* A descriptor of what the image has at `path`, which leads through no symbolic link; -1, and
 * errno. Longer paths than the kernel takes go piece by piece. */
static int open_below(int directory, const char* path, uint64_t flags) {
  struct open_how how = {.flags = flags | O_NOFOLLOW | O_CLOEXEC,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  int from = dup(directory);
  while (from >= 0 && strlen(path) >= PATH_MAX) {
    char piece[PATH_MAX];
    size_t length = PATH_MAX - 1;
    while (path[length] != '/') length--; /* no name is longer than NAME_MAX */
    memcpy(piece, path, length);
    piece[length] = '\0';
    struct open_how through = how;
    through.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int next = (int)syscall(SYS_openat2, from, piece, &through, sizeof through);
    int code = errno;
    close(from);
    errno = code;
    from = next;
    path += length + 1;
  }
  if (from < 0) return -1;
  int found = (int)syscall(SYS_openat2, from, path, &how, sizeof how);
  int code = errno;
  close(from);
  errno = code;
  return found;
}

static bool is_whiteout(const struct stat* status) {
  return S_ISCHR(status->st_mode) && status->st_rdev == 0;
}

/* O_PATH, or -1 when the image has nothing there. The lowest layer may have whiteouts, of nothing.
 */
static int open_lower(const struct file_diff* diff, const char* path, struct stat* status) {
  int found = open_below(diff->lower, path, O_PATH);
  if (found < 0 || (fstat(found, status) == 0 && !is_whiteout(status))) return found;
  close(found);
  return -1;
}

static bool is_opaque(int directory) {
  char value;
  return fgetxattr(directory, "trusted.overlay.opaque", &value, 1) == 1 && value == 'y';
}

static bool tell(struct file_diff* diff, int directory, const char* name, const char* path,
                 const struct stat* status, enum msb_file_change change) {
  int code = file_send_entry(diff->operation->stream, directory, name, path, status, change);
  if (code == ENOENT || code == EINVAL) return true; /* it was removed since, or replaced */
  if (code != 0) return file_tree_fail(diff->tree, code, "look at", diff->operation->failure);
  diff->operation->value++;
  return true;
}

/* The directories that lead to the current entry, which is to be told. */
static bool tell_parents(struct file_diff* diff) {
  struct file_tree* tree = diff->tree;
  for (uint32_t level = 1; level < tree->depth; level++) {
    if (diff->told[level]) continue;
    diff->told[level] = true;
    const struct file_tree_level* directory = &tree->levels[level];
    struct stat status;
    if (fstat(directory->descriptor, &status) != 0) continue; /* it is there, or was */
    char end = tree->path[directory->path_length];
    tree->path[directory->path_length] = '\0';
    bool told = tell(diff, directory->descriptor, "", tree->path, &status,
                     (enum msb_file_change)diff->change[level]);
    tree->path[directory->path_length] = end;
    if (!told) return false;
  }
  return true;
}

static bool tell_current(struct file_diff* diff, enum msb_file_change change) {
  struct file_tree* tree = diff->tree;
  if (!tell_parents(diff)) return false;
  diff->told[tree->depth] = true;
  return tell(diff, tree->directory, tree->name, tree->path, &tree->status, change);
}

static bool tell_deleted(struct file_diff* diff, int lower, const char* path,
                         const struct stat* status) {
  return tell_parents(diff) && tell(diff, lower, "", path, status, MSB_FILE_DELETED);
}

/* A name of the image in a directory that was replaced. */
static bool look_at_hidden(struct file_diff* diff, int upper, const char* name) {
  char path[FILE_TREE_PATH_MAX];
  struct stat status;
  size_t length = strlen(diff->tree->path);
  if (fstatat(upper, name, &status, AT_SYMLINK_NOFOLLOW) == 0) return true;
  if (length + 1 + strlen(name) >= sizeof path) {
    return file_tree_fail(diff->tree, ENAMETOOLONG, "look at", diff->operation->failure);
  }
  memcpy(path, diff->tree->path, length);
  path[length] = '/';
  memcpy(path + length + 1, name, strlen(name) + 1);
  int lower = open_lower(diff, path, &status);
  if (lower < 0) return true;
  bool told = tell_deleted(diff, lower, path, &status);
  close(lower);
  return told;
}

struct directory_name {
  uint64_t inode;
  int64_t next;
  uint16_t length;
  uint8_t type;
  char name[];
};

static bool look_at_names(struct file_diff* diff, int upper, int lower) {
  static _Alignas(uint64_t) uint8_t names[NAMES_SIZE];
  long n;
  while ((n = syscall(SYS_getdents64, lower, names, sizeof names)) > 0) {
    for (long at = 0; at < n;) {
      const struct directory_name* entry = (const void*)(names + at);
      at += entry->length;
      if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0) continue;
      if (!look_at_hidden(diff, upper, entry->name)) return false;
    }
  }
  return n == 0 || file_tree_fail(diff->tree, errno, "read what the image has below",
                                  diff->operation->failure);
}

/* What the image has in a directory that took the place of its own, and the new one has not. */
static bool tell_hidden(struct file_diff* diff, int upper) {
  int lower = open_below(diff->lower, diff->tree->path, O_RDONLY | O_DIRECTORY);
  if (lower < 0) {
    return file_tree_fail(diff->tree, errno, "read what the image has below",
                          diff->operation->failure);
  }
  bool told = look_at_names(diff, upper, lower);
  close(lower);
  return told;
}

static bool look_at_common_directory(struct file_diff* diff, const struct stat* lower) {
  struct file_tree* tree = diff->tree;
  const struct stat* upper = &tree->status;
  int directory =
      openat(tree->directory, tree->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (directory < 0) return true; /* removed since */
  bool opaque = diff->opaque_level != 0 || is_opaque(directory);
  bool changed = upper->st_mode != lower->st_mode || upper->st_uid != lower->st_uid ||
                 upper->st_gid != lower->st_gid;
  bool good = true;
  if (opaque || changed) good = tell_current(diff, MSB_FILE_CHANGED);
  if (good && opaque) good = tell_hidden(diff, directory);
  if (opaque && diff->opaque_level == 0) diff->opaque_level = tree->depth;
  close(directory);
  return good;
}

/* What something is mounted on, or the init has made, is only worth mention for what is in it. */
static bool is_place(const struct file_tree* tree) {
  bool empty =
      S_ISDIR(tree->status.st_mode) || (S_ISREG(tree->status.st_mode) && tree->status.st_size == 0);
  return empty && (file_layers_is_made(tree->path) || is_mount_root(tree->path));
}

static bool look_at_current(struct file_diff* diff) {
  struct file_tree* tree = diff->tree;
  if (tree->depth <= diff->opaque_level) diff->opaque_level = 0;
  struct stat lower;
  int found = open_lower(diff, tree->path, &lower);
  enum msb_file_change change = found < 0 ? MSB_FILE_ADDED : MSB_FILE_CHANGED;
  /* Level 0 is the root, so that the levels of entries are those of the directories that they
   * become. */
  diff->told[tree->depth] = false;
  diff->change[tree->depth] = (uint8_t)change;
  bool good = true;
  if (is_whiteout(&tree->status)) {
    if (found >= 0) good = tell_deleted(diff, found, tree->path, &lower);
  } else if (found < 0) {
    good = is_place(tree) || file_layers_is_as_written(tree->path) || tell_current(diff, change);
  } else if (S_ISDIR(tree->status.st_mode) && S_ISDIR(lower.st_mode)) {
    good = look_at_common_directory(diff, &lower);
  } else {
    good = file_layers_is_as_written(tree->path) || tell_current(diff, change);
  }
  if (found >= 0) close(found);
  return good;
}

static bool walk(struct file_diff* diff) {
  struct file_tree* tree = diff->tree;
  struct failure* failure = diff->operation->failure;
  enum file_tree_step step;
  while ((step = file_tree_next(tree, failure)) != FILE_TREE_END) {
    if (step == FILE_TREE_FAILED || file_stream_is_broken(diff->operation->stream)) return false;
    if (step == FILE_TREE_ENTRY && !look_at_current(diff)) return false;
  }
  return true;
}

bool file_diff(struct file_operation* operation) {
  static struct file_diff diff;
  const struct file_layers* layers = file_layers_get();
  if (strcmp(operation->request->path, "/") != 0) {
    return fail(operation->failure, MSB_STAGE_REQUEST, EINVAL, "DIFF: of / alone");
  }
  if (layers->upper < 0) return file_fail(operation, ENOTSUP, "find the layers of");
  diff = (struct file_diff){.operation = operation, .tree = file_shared_tree(), .lower = -1};
  int upper = openat(layers->upper, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (upper < 0) return file_fail(operation, errno, "open the writable layer of");
  diff.lower = layers->open_lower(layers->base);
  if (diff.lower < 0 || chdir("/") != 0) {
    int code = errno;
    close(upper);
    return file_fail(operation, code, "open the layers of");
  }
  bool done = file_tree_open(diff.tree, upper, "/", 0, false, operation->failure) && walk(&diff);
  file_tree_close(diff.tree);
  close(diff.lower);
  return done;
}
