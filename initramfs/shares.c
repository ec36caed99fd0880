/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/shares.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "initramfs/mounts.h"
#include "protocol/msb_boot.h"
#include "protocol/msb_exec.h"

bool shares_open(struct boot_config* config, const char* host, struct failure* failure) {
  for (size_t i = 0; i < config->share_count; i++) {
    struct boot_share* share = &config->shares[i];
    char path[MSB_BOOT_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", host, share->path);
    share->mount = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    /* The device's own mount is for the init's eyes only. */
    struct mount_attr attributes = {
        .attr_set = share->read_only ? MOUNT_ATTR_RDONLY : 0,
        .attr_clr = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
                    (share->read_only ? 0 : MOUNT_ATTR_RDONLY),
    };
    if (share->mount < 0 || syscall(SYS_mount_setattr, share->mount, "", AT_EMPTY_PATH, &attributes,
                                    sizeof attributes) != 0) {
      return fail(failure, MSB_STAGE_BOOT, errno, "cannot take what is shared for %.200s",
                  share->target);
    }
  }
  return true;
}

static bool make_file(const char* path) {
  const char* slash = strrchr(path, '/');
  char parent[MSB_BOOT_MAX + 1];
  size_t length = (size_t)(slash - path);
  memcpy(parent, path, length);
  parent[length] = '\0';
  if (length > 0 && !make_directories(parent)) return false;
  int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return false;
  close(file);
  return true;
}

bool shares_mount(struct boot_config* config, struct failure* failure) {
  for (size_t i = 0; i < config->share_count; i++) {
    struct boot_share* share = &config->shares[i];
    struct stat kind;
    struct stat there;
    bool good = fstat(share->mount, &kind) == 0;
    if (good && stat(share->target, &there) != 0) {
      good = S_ISDIR(kind.st_mode) ? make_directories(share->target) : make_file(share->target);
    }
    good = good && syscall(SYS_move_mount, share->mount, "", AT_FDCWD, share->target,
                           MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS) == 0;
    if (!good) {
      return fail(failure, MSB_STAGE_BOOT, errno, "cannot show what is shared at %.200s",
                  share->target);
    }
    close(share->mount);
  }
  return true;
}
