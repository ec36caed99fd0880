/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that look: STAT, LIST, WALK, READLINK. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "initramfs/file_operations.h"
#include "initramfs/file_tree.h"

static int64_t nanoseconds(struct timespec time) {
  int64_t result;
  /* A time that no 64-bit number of nanoseconds holds (beyond the year 2262) comes as the last one
   * that it does. */
  if (__builtin_mul_overflow((int64_t)time.tv_sec, 1000000000, &result) ||
      __builtin_add_overflow(result, (int64_t)time.tv_nsec, &result)) {
    return time.tv_sec < 0 ? INT64_MIN : INT64_MAX;
  }
  return result;
}

int file_send_entry(struct file_stream* stream, int directory, const char* name, const char* path,
                    const struct stat* status, uint32_t change) {
  char target[PATH_MAX];
  ssize_t target_length = 0;
  if (S_ISLNK(status->st_mode)) {
    target_length = readlinkat(directory, name, target, sizeof target - 1);
    if (target_length < 0) return errno;
  }
  target[target_length] = '\0';
  struct msb_file_entry entry = {.mode = status->st_mode,
                                 .user = status->st_uid,
                                 .group = status->st_gid,
                                 .links = (uint32_t)status->st_nlink,
                                 .size = (uint64_t)status->st_size,
                                 .inode = status->st_ino,
                                 .modified_ns = nanoseconds(status->st_mtim),
                                 .changed_ns = nanoseconds(status->st_ctim),
                                 .change = change};
  bool is_device = S_ISCHR(status->st_mode) || S_ISBLK(status->st_mode);
  if (is_device) entry.device = status->st_rdev;
  struct iovec pieces[3] = {{&entry, sizeof entry},
                            {(void*)(uintptr_t)path, strlen(path) + 1},
                            {target, (size_t)target_length + 1}};
  if (pieces[0].iov_len + pieces[1].iov_len + pieces[2].iov_len > MSB_MAX_REQUEST) {
    return ENAMETOOLONG;
  }
  file_stream_send(stream, MSB_FILE_ENTRY, pieces, 3);
  return 0;
}

bool file_stat(struct file_operation* operation) {
  const struct file_request* request = operation->request;
  bool follow = (request->fields.flags & MSB_FILE_FOLLOW) != 0;
  struct stat status;
  int code = 0;
  if (fstatat(AT_FDCWD, request->path, &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) {
    code = errno;
  } else {
    code = file_send_entry(operation->stream, AT_FDCWD, request->path, request->path, &status, 0);
  }
  return code == 0 || file_fail(operation, code, "look at");
}

static bool send_tree(struct file_operation* operation, uint64_t depth) {
  struct file_tree* tree = file_shared_tree();
  const char* path = operation->request->path;
  int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return file_fail(operation, errno, "open the directory");
  if (!file_tree_open(tree, directory, path, depth, false, operation->failure)) return false;
  enum file_tree_step step;
  while ((step = file_tree_next(tree, operation->failure)) != FILE_TREE_END) {
    if (step == FILE_TREE_FAILED || file_stream_is_broken(operation->stream)) break;
    if (step == FILE_TREE_LEAVE) continue;
    int code = file_send_entry(operation->stream, tree->directory, tree->name, tree->path,
                               &tree->status, 0);
    /* It was removed, or replaced, since it was looked at. */
    if (code == ENOENT || code == EINVAL) continue;
    if (code != 0) {
      file_tree_fail(tree, code, "look at", operation->failure);
      break;
    }
    operation->value++;
  }
  file_tree_close(tree);
  return step == FILE_TREE_END;
}

bool file_list(struct file_operation* operation) {
  return send_tree(operation, 1);
}

bool file_walk(struct file_operation* operation) {
  return send_tree(operation, operation->request->fields.length);
}

bool file_readlink(struct file_operation* operation) {
  char target[PATH_MAX];
  ssize_t length = readlink(operation->request->path, target, sizeof target);
  if (length < 0) return file_fail(operation, errno, "read the symbolic link");
  file_stream_send_data(operation->stream, target, (size_t)length);
  return true;
}
