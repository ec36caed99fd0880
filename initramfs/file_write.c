/* SPDX-License-Identifier: Apache-2.0 */
/* WRITE. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "initramfs/file_operations.h"
#include "initramfs/file_path.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#endif

#define WRITE_FLAGS (O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

static bool has_flag(const struct file_operation* operation, uint32_t flag) {
  return (operation->request->fields.flags & flag) != 0;
}

/* Writes what the host sends through to the file. */
static bool write_data(struct file_operation* operation, int descriptor) {
  const uint8_t* bytes;
  size_t length;
  while ((length = file_stream_receive_data(operation->stream, FILE_STREAM_BUFFER, &bytes)) > 0) {
    while (length > 0) {
      ssize_t n = write(descriptor, bytes, length);
      if (n <= 0) return file_fail(operation, n < 0 ? errno : EIO, "write");
      bytes += n;
      length -= (size_t)n;
      operation->value += (uint64_t)n;
    }
  }
  return !operation->stream->broken;
}

/* The owner first: changing it clears set-user-ID and set-group-ID (chown(2)). */
static bool set_owner_and_mode(struct file_operation* operation, int descriptor, uint32_t user,
                               uint32_t group, mode_t mode) {
  if (fchown(descriptor, user, group) != 0) {
    return file_fail(operation, errno, "change the owner of");
  }
  if (fchmod(descriptor, mode) != 0) return file_fail(operation, errno, "change the mode of");
  return true;
}

/* Opens the file, or makes it. Returns the descriptor, or -1 with errno. */
static int open_or_make(const char* path, bool exclusive, bool* made) {
  *made = false;
  if (!exclusive) {
    struct stat status;
    /* Writing into a pipe waits for its reader, and opening it is an event for one. */
    if (stat(path, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode))) {
      errno = EOPNOTSUPP;
      return -1;
    }
    int descriptor = open(path, WRITE_FLAGS);
    if (descriptor >= 0 || errno != ENOENT) return descriptor;
  }
  *made = true;
  int descriptor = open(path, WRITE_FLAGS | O_CREAT | O_EXCL, 0600);
  if (descriptor >= 0 || errno != EEXIST || exclusive) return descriptor;
  /* A symbolic link to what is not there yet. */
  return open(path, WRITE_FLAGS | O_CREAT, 0600);
}

/* Puts the descriptor where the first byte goes. */
static bool prepare(struct file_operation* operation, int descriptor) {
  const struct msb_file_request* fields = &operation->request->fields;
  if (has_flag(operation, MSB_FILE_APPEND)) {
    if (fcntl(descriptor, F_SETFL, O_APPEND | O_NONBLOCK) == 0) return true;
    return file_fail(operation, errno, "append to");
  }
  if (has_flag(operation, MSB_FILE_UPDATE)) {
    if (fields->offset == 0 || lseek(descriptor, (off_t)fields->offset, SEEK_SET) >= 0) return true;
    return file_fail(operation, errno, "write at that offset into");
  }
  /* EINVAL: a device, which has no size. */
  if (ftruncate(descriptor, 0) == 0 || errno == EINVAL) return true;
  return file_fail(operation, errno, "truncate");
}

static bool write_in_place(struct file_operation* operation) {
  const struct msb_file_request* fields = &operation->request->fields;
  const char* path = operation->request->path;
  bool made;
  int descriptor = open_or_make(path, has_flag(operation, MSB_FILE_EXCLUSIVE), &made);
  if (descriptor < 0) return file_fail(operation, errno, "open");
  bool done = (!made || set_owner_and_mode(operation, descriptor, fields->user, fields->group,
                                           fields->mode)) &&
              prepare(operation, descriptor) && write_data(operation, descriptor);
  bool sync = done && has_flag(operation, MSB_FILE_SYNC);
  if (sync && fsync(descriptor) != 0) done = file_fail(operation, errno, "sync");
  /* Some file systems only say here that there was no room. */
  if (close(descriptor) != 0 && done) done = file_fail(operation, errno, "write");
  if (sync && done && made) done = file_sync_parent(path, operation->failure);
  return done;
}

/* A new file that takes another's name at the end. */
struct replacement {
  struct file_place place; /* the name that it takes */
  int descriptor;
  char name[32]; /* that it has until then; empty: none */
  uint32_t user;
  uint32_t group;
  mode_t mode;
};

static bool choose_name(struct replacement* replacement) {
  uint64_t number;
  if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) return false;
  snprintf(replacement->name, sizeof replacement->name, ".msb-%016llx", (unsigned long long)number);
  return true;
}

/*
 * Without a name as long as it is written: then not even a machine that is killed leaves it behind.
 * Where a file system cannot do that (EOPNOTSUPP, or EISDIR from what never heard of O_TMPFILE) it
 * has a name that nobody else uses.
 */
static bool make_replacement(struct replacement* replacement) {
  int directory = replacement->place.directory;
  replacement->descriptor = openat(directory, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (replacement->descriptor >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) {
    return replacement->descriptor >= 0;
  }
  if (!choose_name(replacement)) return false;
  replacement->descriptor =
      openat(directory, replacement->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (replacement->descriptor < 0) replacement->name[0] = '\0';
  return replacement->descriptor >= 0;
}

/* linkat(2) replaces nothing, therefore it takes two steps. */
static bool take_name(struct replacement* replacement, bool exclusive) {
  int directory = replacement->place.directory;
  if (replacement->name[0] == '\0') {
    if (!choose_name(replacement)) return false;
    if (linkat(replacement->descriptor, "", directory, replacement->name, AT_EMPTY_PATH) != 0) {
      replacement->name[0] = '\0';
      return false;
    }
  }
  if (syscall(SYS_renameat2, directory, replacement->name, directory, replacement->place.name,
              exclusive ? RENAME_NOREPLACE : 0u) != 0) {
    return false;
  }
  replacement->name[0] = '\0';
  return true;
}

/* Looks at what is to be replaced, and takes its owner and mode over. */
static bool inspect_replaced(struct file_operation* operation, struct replacement* replacement) {
  const struct file_place* place = &replacement->place;
  struct stat status;
  if (fstatat(place->directory, place->name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT || file_fail(operation, errno, "look at");
  }
  if (has_flag(operation, MSB_FILE_EXCLUSIVE)) return file_fail(operation, EEXIST, "make");
  if (S_ISDIR(status.st_mode)) return file_fail(operation, EISDIR, "replace");
  if (!S_ISREG(status.st_mode)) return file_fail(operation, EOPNOTSUPP, "replace");
  replacement->user = status.st_uid;
  replacement->group = status.st_gid;
  replacement->mode = status.st_mode & 07777;
  return true;
}

static bool fill_replacement(struct file_operation* operation, struct replacement* replacement) {
  int descriptor = replacement->descriptor;
  bool done = write_data(operation, descriptor) &&
              set_owner_and_mode(operation, descriptor, replacement->user, replacement->group,
                                 replacement->mode);
  if (done && fsync(descriptor) != 0) done = file_fail(operation, errno, "sync");
  if (done && !take_name(replacement, has_flag(operation, MSB_FILE_EXCLUSIVE))) {
    done = file_fail(operation, errno, "replace");
  }
  int directory = replacement->place.directory;
  if (replacement->name[0] != '\0') unlinkat(directory, replacement->name, 0);
  if (close(descriptor) != 0 && done) done = file_fail(operation, errno, "write");
  if (done && fsync(directory) != 0) done = file_fail(operation, errno, "sync the directory of");
  return done;
}

static bool write_atomically(struct file_operation* operation) {
  const struct msb_file_request* fields = &operation->request->fields;
  struct replacement replacement = {
      .user = fields->user, .group = fields->group, .mode = fields->mode};
  bool follow = !has_flag(operation, MSB_FILE_EXCLUSIVE);
  if (!file_place_open(&replacement.place, operation->request->path, follow, operation->failure)) {
    return false;
  }
  bool done = inspect_replaced(operation, &replacement);
  if (done && !make_replacement(&replacement)) done = file_fail(operation, errno, "make");
  done = done && fill_replacement(operation, &replacement);
  file_place_close(&replacement.place);
  return done;
}

bool file_write(struct file_operation* operation) {
  const struct msb_file_request* fields = &operation->request->fields;
  if (has_flag(operation, MSB_FILE_PARENTS) &&
      !file_make_parents(operation->request->path, false, fields->user, fields->group,
                         operation->failure)) {
    return false;
  }
  return has_flag(operation, MSB_FILE_ATOMIC) ? write_atomically(operation)
                                              : write_in_place(operation);
}
