/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/unpack_entry.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "initramfs/file_path.h"

/* Of a device number (include/linux/kdev_t.h). */
#define MAJOR_MAX ((1 << 12) - 1)
#define MINOR_MAX ((1 << 20) - 1)

/* How often something new may stand in the way of what is being made. */
#define TRIES_MAX 16

static char entry_path[UNPACK_PATH_MAX];
static char link_path[UNPACK_PATH_MAX];

static int printed_length(struct tar_text text) {
  return (int)(text.length < 200 ? text.length : 200);
}

bool unpack_entry_fail(const struct unpack_entry* entry, int code, const char* verb) {
  struct tar_text name = entry->header->name;
  return fail(entry->failure, MSB_STAGE_FILE, code, "cannot %s the entry %.*s", verb,
              printed_length(name), name.bytes);
}

static bool refuse(const struct unpack_entry* entry, const char* what, const char* wrong) {
  struct tar_text name = entry->header->name;
  return fail(entry->failure, MSB_STAGE_FILE, EINVAL, "%s of the entry %.*s %s", what,
              printed_length(name), name.bytes, wrong);
}

static bool is_owner(int64_t owner) {
  /* 2^32-1 is nobody's: chown(2) takes it for "leave it". */
  return owner >= 0 && owner < (int64_t)UINT32_MAX;
}

static size_t directory_length(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash == NULL ? 0 : (size_t)(slash - path);
}

static const char* last_name(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash == NULL ? path : slash + 1;
}

bool unpack_entry_place(struct unpack_entry* entry) {
  const struct tar_header* header = entry->header;
  const char* wrong = tar_normalise_name(header->name, entry_path, sizeof entry_path);
  if (wrong != NULL) return refuse(entry, "the name", wrong);
  if (entry_path[0] == '\0' && header->type != TAR_DIRECTORY) {
    return refuse(entry, "the name", "is that of a directory");
  }
  if (!is_owner(header->user) || !is_owner(header->group)) {
    return refuse(entry, "the owner", "is no number of a user and a group");
  }
  /* As NULs end names in headers, but not in records. */
  if (memchr(header->link.bytes, '\0', header->link.length) != NULL) {
    return refuse(entry, "the target", "contains a zero byte");
  }
  int code = unpack_directory_go(entry->directory, entry_path, directory_length(entry_path));
  if (code != 0) return unpack_entry_fail(entry, code, "go to the directory of");
  entry->node =
      (struct file_node){unpack_directory_descriptor(entry->directory), last_name(entry_path), -1};
  return true;
}

/* Whether the name is free now; else errno says why not. */
static bool make_way(const struct file_node* node) {
  if (unlinkat(node->directory, node->name, 0) == 0 || errno == ENOENT) return true;
  /* POSIX has EPERM for a directory. */
  struct stat status;
  if (fstatat(node->directory, node->name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISDIR(status.st_mode)) {
    errno = EISDIR;
  }
  return false;
}

/* Makes what `make` does, which never replaces anything, and removes what is in its way. Returns
 * what it does, or -1 with errno. */
static int make_replacing(struct unpack_entry* entry, int (*make)(const struct unpack_entry*)) {
  for (int tries = 0; tries < TRIES_MAX; tries++) {
    int result = make(entry);
    if (result >= 0 || errno != EEXIST) return result;
    if (!make_way(&entry->node)) return -1;
  }
  errno = EEXIST;
  return -1;
}

static int make_regular(const struct unpack_entry* entry) {
  return openat(entry->node.directory, entry->node.name,
                O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

int unpack_entry_create(struct unpack_entry* entry) {
  int descriptor = make_replacing(entry, make_regular);
  if (descriptor < 0) unpack_entry_fail(entry, errno, "make");
  return descriptor;
}

static int change_owner(const struct unpack_entry* entry) {
  uid_t user = (uid_t)entry->header->user;
  gid_t group = (gid_t)entry->header->group;
  const struct file_node* node = &entry->node;
  if (node->descriptor >= 0) return fchown(node->descriptor, user, group);
  return fchownat(node->directory, node->name, user, group, AT_SYMLINK_NOFOLLOW);
}

static int change_mode(const struct unpack_entry* entry) {
  mode_t mode = (mode_t)entry->header->mode & 07777;
  const struct file_node* node = &entry->node;
  if (node->descriptor >= 0) return fchmod(node->descriptor, mode);
  return file_change_mode(node->directory, node->name, mode);
}

static struct timespec modified(const struct unpack_entry* entry) {
  return (struct timespec){.tv_sec = entry->header->seconds,
                           .tv_nsec = (long)entry->header->nanoseconds};
}

static int change_time(const struct unpack_entry* entry) {
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, modified(entry)};
  const struct file_node* node = &entry->node;
  if (node->descriptor >= 0) return futimens(node->descriptor, times);
  return utimensat(node->directory, node->name, times, AT_SYMLINK_NOFOLLOW);
}

/* In this order: a new owner clears set-user-ID, set-group-ID and capabilities (chown(2)). */
static bool set_attributes(const struct unpack_entry* entry) {
  if (change_owner(entry) != 0) return unpack_entry_fail(entry, errno, "change the owner of");
  if (entry->header->type != TAR_SYMLINK && change_mode(entry) != 0) {
    return unpack_entry_fail(entry, errno, "change the mode of");
  }
  int code = file_xattrs_write(&entry->node, entry->records);
  return code == 0 || unpack_entry_fail(entry, code, "set the extended attributes of");
}

bool unpack_entry_finish(const struct unpack_entry* entry) {
  if (!set_attributes(entry)) return false;
  if (change_time(entry) != 0) return unpack_entry_fail(entry, errno, "change the time of");
  return true;
}

static int make_symlink(const struct unpack_entry* entry) {
  char target[PATH_MAX];
  struct tar_text link = entry->header->link;
  if (link.length >= sizeof target) {
    errno = ENAMETOOLONG;
    return -1;
  }
  memcpy(target, link.bytes, link.length);
  target[link.length] = '\0';
  return symlinkat(target, entry->node.directory, entry->node.name);
}

bool unpack_entry_symlink(struct unpack_entry* entry) {
  if (make_replacing(entry, make_symlink) < 0) return unpack_entry_fail(entry, errno, "make");
  return unpack_entry_finish(entry);
}

static int make_device(const struct unpack_entry* entry) {
  const struct tar_header* header = entry->header;
  mode_t type = S_IFIFO;
  dev_t device = 0;
  if (header->type != TAR_FIFO) {
    type = header->type == TAR_CHARACTER_DEVICE ? S_IFCHR : S_IFBLK;
    device = makedev((unsigned)header->major, (unsigned)header->minor);
  }
  return mknodat(entry->node.directory, entry->node.name, type | 0600, device);
}

bool unpack_entry_device(struct unpack_entry* entry) {
  const struct tar_header* header = entry->header;
  if (header->major < 0 || header->major > MAJOR_MAX || header->minor < 0 ||
      header->minor > MINOR_MAX) {
    return refuse(entry, "the device number", "is out of range");
  }
  if (make_replacing(entry, make_device) < 0) return unpack_entry_fail(entry, errno, "make");
  return unpack_entry_finish(entry);
}

static int make_directory(const struct unpack_entry* entry) {
  const struct file_node* node = &entry->node;
  if (mkdirat(node->directory, node->name, 0700) == 0) return 0;
  int code = errno;
  struct stat status;
  if (code == EEXIST && fstatat(node->directory, node->name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISDIR(status.st_mode)) {
    return 0;
  }
  errno = code;
  return -1;
}

bool unpack_entry_directory(struct unpack_entry* entry) {
  if (entry_path[0] != '\0' && make_replacing(entry, make_directory) < 0) {
    return unpack_entry_fail(entry, errno, "make");
  }
  int code = unpack_directory_go(entry->directory, entry_path, strlen(entry_path));
  if (code != 0) return unpack_entry_fail(entry, code, "open");
  entry->node.descriptor = unpack_directory_descriptor(entry->directory);
  if (!set_attributes(entry)) return false;
  unpack_directory_set_modified(entry->directory, modified(entry));
  return true;
}

static int make_link(const struct unpack_entry* entry) {
  return linkat(entry->link_directory, last_name(link_path), entry->node.directory,
                entry->node.name, 0);
}

static bool is_same_file(const struct unpack_entry* entry) {
  struct stat target;
  struct stat existing;
  return fstatat(entry->link_directory, last_name(link_path), &target, AT_SYMLINK_NOFOLLOW) == 0 &&
         fstatat(entry->node.directory, entry->node.name, &existing, AT_SYMLINK_NOFOLLOW) == 0 &&
         target.st_dev == existing.st_dev && target.st_ino == existing.st_ino;
}

bool unpack_entry_hard_link(struct unpack_entry* entry) {
  const char* wrong = tar_normalise_name(entry->header->link, link_path, sizeof link_path);
  if (wrong != NULL) return refuse(entry, "the target", wrong);
  entry->link_directory =
      unpack_directory_open_beneath(entry->directory, link_path, directory_length(link_path));
  if (entry->link_directory < 0) return unpack_entry_fail(entry, errno, "go to the target of");
  /* What already is that file must not make way for it. */
  bool done = link_path[0] != '\0' && is_same_file(entry);
  if (!done) {
    done = make_replacing(entry, make_link) >= 0 || unpack_entry_fail(entry, errno, "link");
  }
  close(entry->link_directory);
  return done;
}
