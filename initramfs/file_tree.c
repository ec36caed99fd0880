/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/file_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* struct linux_dirent64 of getdents64(2). */
struct directory_record {
  uint64_t inode;
  int64_t next;
  uint16_t length;
  uint8_t type;
  char name[];
};

#define DIRECTORY_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

void file_tree_raise_limit(void) {
  struct rlimit files;
  rlim_t needed = FILE_TREE_DEPTH_MAX + 64;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= needed) return;
  files.rlim_cur = files.rlim_max < needed ? files.rlim_max : needed;
  struct rlimit higher = {needed, files.rlim_max < needed ? needed : files.rlim_max};
  /* Whoever may not raise it stops at EMFILE. */
  if (setrlimit(RLIMIT_NOFILE, &higher) != 0) setrlimit(RLIMIT_NOFILE, &files);
}

bool file_tree_fail(const struct file_tree* tree, int code, const char* verb,
                    struct failure* failure) {
  const char* root = tree->root_path;
  size_t length = strlen(root);
  const char* separator = length > 0 && root[length - 1] == '/' ? "" : "/";
  return fail(failure, MSB_STAGE_FILE, code, "cannot %s %.200s%s%.200s", verb, root, separator,
              tree->path);
}

bool file_tree_open(struct file_tree* tree, int directory, const char* root_path,
                    uint64_t depth_max, bool restarts, struct failure* failure) {
  tree->name = tree->path;
  tree->path[0] = '\0';
  tree->root_path = root_path;
  tree->depth = 0;
  tree->depth_max = depth_max == 0 || depth_max > FILE_TREE_DEPTH_MAX ? FILE_TREE_DEPTH_MAX + 1
                                                                      : (uint32_t)depth_max;
  tree->restarts = restarts;
  tree->enters = false;
  memset(tree->owners, 0, sizeof tree->owners);
  if (fstat(directory, &tree->status) != 0) {
    int code = errno;
    close(directory);
    return file_tree_fail(tree, code, "look at", failure);
  }
  tree->levels[0] =
      (struct file_tree_level){.descriptor = directory, .device = tree->status.st_dev};
  tree->depth = 1;
  return true;
}

void file_tree_close(struct file_tree* tree) {
  while (tree->depth > 0) close(tree->levels[--tree->depth].descriptor);
}

/* File systems that are no files but the kernel's controls; some of theirs block, or end nowhere.
 */
static bool is_special(int directory) {
  struct statfs status;
  if (fstatfs(directory, &status) != 0) return false;
  switch ((uint32_t)status.f_type) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case SELINUX_MAGIC:
    case SMACK_MAGIC:
    case BPF_FS_MAGIC:
    case PSTOREFS_MAGIC:
    case EFIVARFS_MAGIC:
    case BINFMTFS_MAGIC:
    case DEVPTS_SUPER_MAGIC:
      return true;
    default:
      return false;
  }
}

/* Goes into the current entry. What is no directory any more, or special, is passed over. */
static bool enter(struct file_tree* tree, struct failure* failure) {
  tree->enters = false;
  if (tree->depth == FILE_TREE_DEPTH_MAX) return file_tree_fail(tree, ELOOP, "enter", failure);
  int descriptor = openat(tree->directory, tree->name, DIRECTORY_FLAGS);
  if (descriptor < 0) {
    if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) return true;
    return file_tree_fail(tree, errno, "open the directory", failure);
  }
  const struct file_tree_level* parent = &tree->levels[tree->depth - 1];
  if (tree->status.st_dev != parent->device && is_special(descriptor)) {
    close(descriptor);
    return true;
  }
  tree->levels[tree->depth++] =
      (struct file_tree_level){.descriptor = descriptor,
                               .path_length = (uint32_t)strlen(tree->path),
                               .device = tree->status.st_dev};
  return true;
}

/* The next record of the innermost directory; NULL at its end and, with `code`, on failure. */
static const struct directory_record* next_record(struct file_tree* tree, int* code) {
  struct file_tree_level* level = &tree->levels[tree->depth - 1];
  uint32_t index = tree->depth % FILE_TREE_BUFFERS;
  *code = 0;
  if (tree->owners[index] != tree->depth) {
    /* A level further down needed the buffer. */
    tree->owners[index] = tree->depth;
    if (level->filled > 0) {
      int64_t where = tree->restarts ? 0 : level->next;
      if (lseek(level->descriptor, where, SEEK_SET) < 0) {
        *code = errno;
        return NULL;
      }
    }
    level->position = level->filled = 0;
  }
  if (level->position == level->filled) {
    long n =
        syscall(SYS_getdents64, level->descriptor, tree->buffers[index], FILE_TREE_BUFFER_SIZE);
    /* ENOENT: the directory itself was removed. */
    if (n < 0 && errno != ENOENT) *code = errno;
    if (n <= 0) return NULL;
    level->position = 0;
    level->filled = (uint32_t)n;
  }
  const struct directory_record* record = (const void*)(tree->buffers[index] + level->position);
  level->position += record->length;
  level->next = record->next;
  return record;
}

static void leave(struct file_tree* tree) {
  tree->owners[tree->depth % FILE_TREE_BUFFERS] = 0;
  const struct file_tree_level* level = &tree->levels[--tree->depth];
  close(level->descriptor);
  tree->path[level->path_length] = '\0';
  const char* slash = strrchr(tree->path, '/');
  tree->name = slash == NULL ? tree->path : slash + 1;
  if (tree->depth > 0) tree->directory = tree->levels[tree->depth - 1].descriptor;
}

/* Makes `name` in the innermost directory the current entry. */
static bool set_path(struct file_tree* tree, const char* name) {
  const struct file_tree_level* level = &tree->levels[tree->depth - 1];
  uint32_t used = level->path_length;
  size_t length = strlen(name);
  tree->path[used] = '\0';
  tree->name = tree->path + used;
  if (length + 2 > sizeof tree->path - used) return false;
  if (used > 0) tree->path[used++] = '/';
  memcpy(tree->path + used, name, length + 1);
  tree->name = tree->path + used;
  tree->directory = level->descriptor;
  return true;
}

static bool is_dot(const char* name) {
  return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

enum file_tree_step file_tree_next(struct file_tree* tree, struct failure* failure) {
  if (tree->enters && !enter(tree, failure)) return FILE_TREE_FAILED;
  while (tree->depth > 0) {
    int code;
    const struct directory_record* record = next_record(tree, &code);
    if (code != 0) {
      tree->path[tree->levels[tree->depth - 1].path_length] = '\0';
      file_tree_fail(tree, code, "read the directory", failure);
      return FILE_TREE_FAILED;
    }
    if (record == NULL) {
      leave(tree);
      return tree->depth > 0 ? FILE_TREE_LEAVE : FILE_TREE_END;
    }
    if (is_dot(record->name)) continue;
    if (!set_path(tree, record->name)) {
      file_tree_fail(tree, ENAMETOOLONG, "go below", failure);
      return FILE_TREE_FAILED;
    }
    if (fstatat(tree->directory, tree->name, &tree->status, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;
      file_tree_fail(tree, errno, "look at", failure);
      return FILE_TREE_FAILED;
    }
    tree->enters = S_ISDIR(tree->status.st_mode) && tree->depth < tree->depth_max;
    return FILE_TREE_ENTRY;
  }
  return FILE_TREE_END;
}
