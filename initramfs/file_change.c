/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that change names and attributes: MKDIR, REMOVE, RENAME, CHMOD, CHOWN, SYMLINK. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "initramfs/file_operations.h"
#include "initramfs/file_path.h"
#include "initramfs/file_tree.h"

/* include/uapi/linux/fs.h, which does not go together with every C library's headers. */
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#endif

bool file_mkdir(struct file_operation* operation) {
  const struct msb_file_request* fields = &operation->request->fields;
  const char* path = operation->request->path;
  bool parents = (fields->flags & MSB_FILE_PARENTS) != 0;
  if (parents && !file_make_parents(path, false, fields->user, fields->group, operation->failure)) {
    return false;
  }
  if (mkdir(path, 0700) != 0) {
    int code = errno;
    struct stat status;
    /* A directory that is there is what was asked for. */
    if (parents && stat(path, &status) == 0 && S_ISDIR(status.st_mode)) return true;
    return file_fail(operation, code, "make the directory");
  }
  /* The owner first: changing it clears set-user-ID and set-group-ID (chown(2)). */
  if (lchown(path, fields->user, fields->group) != 0) {
    return file_fail(operation, errno, "change the owner of");
  }
  if (chmod(path, fields->mode) != 0) return file_fail(operation, errno, "change the mode of");
  return true;
}

static bool is_root_directory(const struct stat* status) {
  struct stat root;
  return stat("/", &root) == 0 && root.st_dev == status->st_dev && root.st_ino == status->st_ino;
}

static bool empty_directory(struct file_operation* operation) {
  struct file_tree* tree = file_shared_tree();
  const char* path = operation->request->path;
  int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (directory < 0) return file_fail(operation, errno, "open the directory");
  if (!file_tree_open(tree, directory, path, 0, true, operation->failure)) return false;
  enum file_tree_step step;
  while ((step = file_tree_next(tree, operation->failure)) != FILE_TREE_END) {
    if (step == FILE_TREE_FAILED || file_stream_is_broken(operation->stream)) break;
    /* A directory goes once it is empty. */
    if (step == FILE_TREE_ENTRY && S_ISDIR(tree->status.st_mode)) continue;
    int flags = step == FILE_TREE_LEAVE ? AT_REMOVEDIR : 0;
    if (unlinkat(tree->directory, tree->name, flags) != 0 && errno != ENOENT) {
      file_tree_fail(tree, errno, "remove", operation->failure);
      break;
    }
  }
  file_tree_close(tree);
  return step == FILE_TREE_END;
}

bool file_remove(struct file_operation* operation) {
  const char* path = operation->request->path;
  uint32_t flags = operation->request->fields.flags;
  struct stat status;
  int result = lstat(path, &status);
  if (result == 0) {
    bool is_directory = S_ISDIR(status.st_mode);
    if (is_directory && (flags & MSB_FILE_RECURSIVE) != 0) {
      /* It cannot go in the end; so what is in it, shares of the host among it, stays as well. */
      if (is_root_directory(&status)) return file_fail(operation, EBUSY, "remove");
      if (!empty_directory(operation)) return false;
    }
    result = is_directory ? rmdir(path) : unlink(path);
  }
  if (result == 0 || (errno == ENOENT && (flags & MSB_FILE_MISSING_OK) != 0)) return true;
  return file_fail(operation, errno, "remove");
}

bool file_rename(struct file_operation* operation) {
  const struct file_request* request = operation->request;
  bool exclusive = (request->fields.flags & MSB_FILE_EXCLUSIVE) != 0;
  if (syscall(SYS_renameat2, AT_FDCWD, request->path, AT_FDCWD, request->new_path,
              exclusive ? RENAME_NOREPLACE : 0u) == 0) {
    return true;
  }
  return fail(operation->failure, MSB_STAGE_FILE, errno, "cannot rename %.200s to %.200s",
              request->path, request->new_path);
}

static int change_owner(const struct msb_file_request* fields, int directory, const char* name,
                        int flags) {
  return fchownat(directory, name, fields->user, fields->group, flags);
}

/* Changes everything below `directory`; symbolic links keep their mode, for they have none. */
static bool change_below(struct file_operation* operation, int directory) {
  struct file_tree* tree = file_shared_tree();
  const struct msb_file_request* fields = &operation->request->fields;
  bool is_chmod = operation->request->type == MSB_FILE_CHMOD;
  if (!file_tree_open(tree, directory, operation->request->path, 0, false, operation->failure)) {
    return false;
  }
  enum file_tree_step step;
  while ((step = file_tree_next(tree, operation->failure)) != FILE_TREE_END) {
    if (step == FILE_TREE_FAILED || file_stream_is_broken(operation->stream)) break;
    int result = 0;
    if (!is_chmod) {
      if (step == FILE_TREE_LEAVE) continue;
      result = change_owner(fields, tree->directory, tree->name, AT_SYMLINK_NOFOLLOW);
    } else {
      /* A directory after what is in it, or the new mode could lock even its owner out. */
      bool later = step == FILE_TREE_ENTRY && S_ISDIR(tree->status.st_mode);
      bool never = step == FILE_TREE_ENTRY && S_ISLNK(tree->status.st_mode);
      if (later || never) continue;
      result = file_change_mode(tree->directory, tree->name, fields->mode);
    }
    if (result != 0 && errno != ENOENT) {
      file_tree_fail(tree, errno, is_chmod ? "change the mode of" : "change the owner of",
                     operation->failure);
      break;
    }
  }
  file_tree_close(tree);
  return step == FILE_TREE_END;
}

/* With RECURSIVE and a directory, what is below it. */
static bool change_contents(struct file_operation* operation, bool follow) {
  if ((operation->request->fields.flags & MSB_FILE_RECURSIVE) == 0) return true;
  int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW);
  int directory = open(operation->request->path, flags);
  if (directory >= 0) return change_below(operation, directory);
  /* ELOOP: a symbolic link that is not followed, with O_DIRECTORY ENOTDIR (open(2)). */
  if (errno == ENOTDIR || errno == ELOOP) return true;
  return file_fail(operation, errno, "open the directory");
}

bool file_chmod(struct file_operation* operation) {
  if (!change_contents(operation, true)) return false;
  if (chmod(operation->request->path, operation->request->fields.mode) == 0) return true;
  return file_fail(operation, errno, "change the mode of");
}

bool file_chown(struct file_operation* operation) {
  const struct msb_file_request* fields = &operation->request->fields;
  bool follow = (fields->flags & MSB_FILE_FOLLOW) != 0;
  if (!change_contents(operation, follow)) return false;
  int flags = follow ? 0 : AT_SYMLINK_NOFOLLOW;
  if (change_owner(fields, AT_FDCWD, operation->request->path, flags) == 0) return true;
  return file_fail(operation, errno, "change the owner of");
}

bool file_symlink(struct file_operation* operation) {
  const struct file_request* request = operation->request;
  if (symlink(request->path, request->new_path) != 0 ||
      lchown(request->new_path, request->fields.user, request->fields.group) != 0) {
    return fail(operation->failure, MSB_STAGE_FILE, errno, "cannot make the symbolic link %.400s",
                request->new_path);
  }
  return true;
}
