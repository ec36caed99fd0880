/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/shares.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "initramfs/mount_root.h"
#include "initramfs/mounts.h"
#include "initramfs/payload_strings.h"
#include "protocol/msb_exec.h"

/* How long a mount or unmount may keep the agent from everything else. */
#define TIMEOUT_MS 2000

/* O_PATH, of the root of the virtio-fs device; nothing leads there by any name. */
static int device = -1;

/* A detached mount of what is shared at `path` in the device, or -1. */
static int take_mount(const char* path, bool read_only) {
  int mount = (int)syscall(SYS_open_tree, device, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  /* The device's own mount is for the init's eyes only. */
  struct mount_attr attributes = {
      .attr_set = read_only ? MOUNT_ATTR_RDONLY : 0,
      .attr_clr = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
                  (read_only ? 0 : MOUNT_ATTR_RDONLY),
  };
  if (mount < 0 ||
      syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0) {
    return mount;
  }
  int code = errno;
  close(mount);
  errno = code;
  return -1;
}

static bool make_file(const char* path) {
  const char* slash = strrchr(path, '/');
  char parent[PATH_MAX];
  size_t length = (size_t)(slash - path);
  if (length >= sizeof parent) {
    errno = ENAMETOOLONG;
    return false;
  }
  memcpy(parent, path, length);
  parent[length] = '\0';
  if (length > 0 && !make_directories(parent)) return false;
  int file = open(path, O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0644);
  if (file < 0) return false;
  close(file);
  return true;
}

/* Takes the mount. */
static bool place_mount(int mount, const char* target, uint32_t stage, struct failure* failure) {
  struct stat kind;
  struct stat there;
  bool good = fstat(mount, &kind) == 0;
  if (good && stat(target, &there) != 0) {
    good = S_ISDIR(kind.st_mode) ? make_directories(target) : make_file(target);
  }
  good = good && syscall(SYS_move_mount, mount, "", AT_FDCWD, target,
                         MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS) == 0;
  int code = errno;
  close(mount);
  if (good) return true;
  /* A directory on a file, or the other way round. */
  return fail(failure, stage, code, "cannot show what is shared at %.200s", target);
}

static bool fail_to_take(const char* target, uint32_t stage, struct failure* failure) {
  return fail(failure, stage, errno, "cannot take what is shared for %.200s", target);
}

bool shares_open(struct boot_config* config, const char* host, struct failure* failure) {
  device = open(host, O_PATH | O_CLOEXEC);
  for (size_t i = 0; i < config->share_count; i++) {
    struct boot_share* share = &config->shares[i];
    share->mount = take_mount(share->path, share->read_only);
    if (share->mount < 0) return fail_to_take(share->target, MSB_STAGE_BOOT, failure);
  }
  return true;
}

bool shares_mount(struct boot_config* config, struct failure* failure) {
  for (size_t i = 0; i < config->share_count; i++) {
    struct boot_share* share = &config->shares[i];
    if (!place_mount(share->mount, share->target, MSB_STAGE_BOOT, failure)) return false;
  }
  return true;
}

/* --- while programs run --- */

static bool check_place(const char* request, const char* place, struct failure* failure) {
  if (place[0] == '/' && place[1] != '\0' && strlen(place) < PATH_MAX) return true;
  return fail(failure, MSB_STAGE_REQUEST, EINVAL, "%s: \"%.200s\" is not an absolute path below /",
              request, place);
}

static bool check_device(struct failure* failure) {
  if (device >= 0) return true;
  return fail(failure, MSB_STAGE_REQUEST, ENODEV, "there is no virtio-fs device to share from");
}

/* All but two and the standard ones: it may live on for a while after the agent gave up on it. */
static void close_others(int one, int other) {
  unsigned low = (unsigned)(one < other ? one : other);
  unsigned high = (unsigned)(one < other ? other : one);
  if (low > 3) syscall(SYS_close_range, 3u, low - 1, 0u);
  if (high > low + 1) syscall(SYS_close_range, low + 1, high - 1, 0u);
  syscall(SYS_close_range, high + 1, ~0u, 0u);
}

/* Programs decide what is at a place, which may be a file system that never answers: the agent is
 * not to wait for that. */
static bool within_time(bool (*work)(const char* const*, struct failure*),
                        const char* const* strings, struct namespace_beside* programs,
                        struct failure* failure) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) {
    return fail(failure, MSB_STAGE_RESOURCES, errno, "cannot make a pipe");
  }
  pid_t child = namespace_fork_beside(programs->init, &programs->restored);
  if (child < 0) {
    fail(failure, MSB_STAGE_RESOURCES, errno, "cannot start a process");
    close(report[0]);
    close(report[1]);
    return false;
  }
  if (child == 0) {
    close_others(device, report[1]);
    memset(failure, 0, sizeof *failure);
    work(strings, failure);
    ssize_t ignored = write(report[1], failure, sizeof *failure);
    (void)ignored;
    _exit(0);
  }
  close(report[1]);
  struct pollfd ready = {.fd = report[0], .events = POLLIN};
  struct failure reported;
  /* Less than PIPE_BUF: never in pieces. */
  bool answered = poll(&ready, 1, TIMEOUT_MS) == 1 &&
                  read(report[0], &reported, sizeof reported) == (ssize_t)sizeof reported;
  close(report[0]);
  kill(child, SIGKILL);
  if (!answered) {
    /* Whoever reaps the orphans of the machine reaps this one as well. */
    return fail(failure, MSB_STAGE_FILE, ETIMEDOUT, "the place of the share does not answer");
  }
  while (waitpid(child, NULL, 0) < 0 && errno == EINTR) continue;
  *failure = reported;
  return reported.stage == 0;
}

enum { MODE, PATH, PLACE, STRINGS };

static bool add(const char* const* strings, struct failure* failure) {
  int mount = take_mount(strings[PATH], strcmp(strings[MODE], "ro") == 0);
  if (mount < 0) return fail_to_take(strings[PLACE], MSB_STAGE_FILE, failure);
  return place_mount(mount, strings[PLACE], MSB_STAGE_FILE, failure);
}

bool shares_add(const uint8_t* payload, size_t length, struct namespace_beside* programs,
                struct failure* failure) {
  const char* strings[STRINGS];
  if (!payload_strings(payload, length, "SHARE", STRINGS, strings, failure) ||
      !check_place("SHARE", strings[PLACE], failure) || !check_device(failure)) {
    return false;
  }
  if (strcmp(strings[MODE], "ro") != 0 && strcmp(strings[MODE], "rw") != 0) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "SHARE: neither \"ro\" nor \"rw\"");
  }
  return within_time(add, strings, programs, failure);
}

static bool remove_share(const char* const* place, struct failure* failure) {
  /* Programs may have unmounted it, or covered it; the host forbids what is left of it. */
  if (!is_mount_root_of(*place, device) || umount2(*place, MNT_DETACH) == 0) return true;
  return fail(failure, MSB_STAGE_FILE, errno, "cannot unmount what is shared at %.200s", *place);
}

bool shares_remove(const uint8_t* payload, size_t length, struct namespace_beside* programs,
                   struct failure* failure) {
  const char* place;
  return payload_strings(payload, length, "UNSHARE", 1, &place, failure) &&
         check_place("UNSHARE", place, failure) && check_device(failure) &&
         within_time(remove_share, &place, programs, failure);
}
