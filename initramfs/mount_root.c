/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/mount_root.h"

/* By themselves: they do not go together with the C library's headers of these things, and musl has
 * no statx(2). */
#include <linux/fcntl.h>
#include <linux/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

bool is_mount_root(const char* path) {
  struct statx there;
  return syscall(SYS_statx, AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW, 0, &there) ==
             0 &&
         (there.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

bool is_mount_root_of(const char* path, int descriptor) {
  struct statx there;
  struct statx device;
  return syscall(SYS_statx, AT_FDCWD, path, AT_STATX_DONT_SYNC, 0, &there) == 0 &&
         syscall(SYS_statx, descriptor, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &device) == 0 &&
         (there.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0 &&
         there.stx_dev_major == device.stx_dev_major && there.stx_dev_minor == device.stx_dev_minor;
}
