/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/mounts.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/msb_boot.h"
#include "protocol/msb_exec.h"

struct system_mount {
  const char* target;
  const char* type;
  unsigned long flags;
  const char* data;
  bool optional; /* a kernel may be built without it */
};

/* In this order. The machine is the program's own, so that /sys and the control groups can be
 * written, unlike in a container. Group 5 is "tty" wherever there is one, and devpts keeps to it as
 * container engines do. */
static const struct system_mount system_mounts[] = {
    {"/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, false},
    {"/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "nsdelegate", true},
    {"/dev", "devtmpfs", MS_NOSUID, "mode=0755", false},
    {"/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5",
     true},
    {"/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", false},
    {"/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, true},
};

/* devtmpfs has nodes only. */
static const char* const device_links[][2] = {
    {"/proc/self/fd", "/dev/fd"},
    {"/proc/self/fd/0", "/dev/stdin"},
    {"/proc/self/fd/1", "/dev/stdout"},
    {"/proc/self/fd/2", "/dev/stderr"},
};

bool make_directory(const char* path, struct failure* failure) {
  if (mkdir(path, 0755) == 0 || errno == EEXIST) return true;
  return fail(failure, MSB_STAGE_BOOT, errno, "cannot make the directory %s", path);
}

bool make_directories(const char* path) {
  char part[MSB_BOOT_MAX + 1];
  size_t length = strlen(path);
  memcpy(part, path, length + 1);
  for (size_t i = 1; i <= length; i++) {
    if (part[i] != '/' && part[i] != '\0') continue;
    char end = part[i];
    part[i] = '\0';
    struct stat attributes;
    if (mkdir(part, 0755) != 0) {
      if (errno != EEXIST || stat(part, &attributes) != 0) return false;
      if (!S_ISDIR(attributes.st_mode)) {
        errno = ENOTDIR;
        return false;
      }
    }
    part[i] = end;
  }
  return true;
}

bool mount_at(const char* target, const char* type, unsigned long flags, const char* data,
              struct failure* failure) {
  if (mount(type, target, type, flags, data) == 0) return true;
  if (errno == ENOENT && mkdir(target, 0755) == 0 && mount(type, target, type, flags, data) == 0) {
    return true;
  }
  return fail(failure, MSB_STAGE_BOOT, errno, "cannot mount %s on %s", type, target);
}

bool mount_system(struct failure* failure) {
  for (size_t i = 0; i < sizeof system_mounts / sizeof *system_mounts; i++) {
    const struct system_mount* entry = &system_mounts[i];
    if (!mount_at(entry->target, entry->type, entry->flags, entry->data, failure) &&
        !(entry->optional && failure->code == ENODEV)) {
      return false;
    }
  }
  for (size_t i = 0; i < sizeof device_links / sizeof *device_links; i++) {
    if (symlink(device_links[i][0], device_links[i][1]) != 0 && errno != EEXIST) {
      return fail(failure, MSB_STAGE_BOOT, errno, "cannot make the link %s", device_links[i][1]);
    }
  }
  /* The image's own /tmp has the image's mode. */
  if (mkdir("/tmp", 0755) == 0) chmod("/tmp", 01777);
  return true;
}

bool mount_proc(struct failure* failure) {
  return mount_at("/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, failure);
}
