/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "initramfs/mounts.h"
#include "initramfs/shares.h"
#include "protocol/msb_boot.h"
#include "protocol/msb_exec.h"

/*
 * All that the root is made of hangs below one mount, so that a single umount2(2) takes it out of
 * sight. The stack has its own references. The device stays mounted, where the root covers it:
 * what is shared later is cloned from there.
 */
#define STAGE "/stage" /* a tmpfs, and a directory of the initramfs */
#define HOST "/host"   /* the virtio-fs device */
#define UPPER STAGE "/upper"
#define WORK STAGE "/work"
#define LAYER_PATH_MAX 32u
#define LOWER_PATH_MAX (sizeof HOST + MSB_BOOT_MAX)

static char boot_text[MSB_BOOT_MAX + 2];

/*
 * The writable layer. Its data may take half of the memory, which is the default of tmpfs; its
 * files may be as many as there are pages, twice the default: about a kilobyte of kernel memory
 * each, and package trees have many small files.
 */
static bool mount_stage(struct failure* failure) {
  struct sysinfo info;
  sysinfo(&info);
  char options[64];
  snprintf(options, sizeof options, "mode=0755,nr_inodes=%lu",
           info.totalram / 4096 * info.mem_unit);
  return mount_at(STAGE, "tmpfs", 0, options, failure);
}

static bool read_boot_file(size_t* length, struct failure* failure) {
  *length = 0;
  int file = open(HOST "/" MSB_BOOT_FILE, O_RDONLY | O_CLOEXEC);
  if (file < 0) return fail(failure, MSB_STAGE_BOOT, errno, "cannot open the boot file");
  struct stat attributes;
  if (fstat(file, &attributes) == 0) clock_settime(CLOCK_REALTIME, &attributes.st_mtim);
  ssize_t n = 1;
  /* One byte more than allowed, so that the parser sees a file that is too large. */
  while (n > 0 && *length < MSB_BOOT_MAX + 1) {
    n = read(file, boot_text + *length, MSB_BOOT_MAX + 1 - *length);
    if (n > 0) *length += (size_t)n;
  }
  int code = errno;
  close(file);
  if (n < 0) return fail(failure, MSB_STAGE_BOOT, code, "cannot read the boot file");
  return true;
}

bool root_open_host(struct boot_config* config, struct failure* failure) {
  if (!mount_stage(failure) || !make_directory(HOST, failure)) return false;
  if (mount(MSB_BOOT_TAG, HOST, "virtiofs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0) {
    return fail(failure, MSB_STAGE_BOOT, errno, "cannot mount the virtio-fs device \"%s\"",
                MSB_BOOT_TAG);
  }
  size_t length = 0;
  return read_boot_file(&length, failure) && boot_config_parse(boot_text, length, config, failure);
}

static void layer_path(char path[LAYER_PATH_MAX], size_t index) {
  snprintf(path, LAYER_PATH_MAX, STAGE "/%zu", index);
}

/* What the stack is made of: mounted layers, or one directory of the host's. */
static size_t lower_count(const struct boot_config* config) {
  return config->root != NULL ? 1 : config->layer_count;
}

static void lower_path(char path[LOWER_PATH_MAX], const struct boot_config* config, size_t index) {
  if (config->root != NULL) {
    snprintf(path, LOWER_PATH_MAX, HOST "/%s", config->root);
  } else {
    layer_path(path, index);
  }
}

/* A file as the source makes EROFS read that file itself (erofs_fc_get_tree() in fs/erofs/super.c):
 * no loop device. Without "directio" the kernel would keep each page twice, of the image and of the
 * file. */
static bool mount_layer(const char* layer, size_t index, struct failure* failure) {
  char source[MSB_BOOT_MAX + sizeof HOST];
  snprintf(source, sizeof source, HOST "/%s", layer);
  char target[LAYER_PATH_MAX];
  layer_path(target, index);
  if (!make_directory(target, failure)) return false;
  if (mount(source, target, "erofs", MS_RDONLY, "directio") == 0) return true;
  return fail(failure, MSB_STAGE_BOOT, errno, "cannot mount the layer %.200s", layer);
}

/* Those that steer overlayfs are its own. */
static bool copy_attributes(const char* from, const char* to) {
  static char names[XATTR_LIST_MAX];
  static char value[XATTR_SIZE_MAX];
  ssize_t length = listxattr(from, names, sizeof names);
  for (char* name = names; name < names + length; name += strlen(name) + 1) {
    if (strncmp(name, "trusted.overlay.", 16) == 0) continue;
    ssize_t size = getxattr(from, name, value, sizeof value);
    if (size < 0 || setxattr(to, name, value, (size_t)size, 0) != 0) return false;
  }
  return length >= 0;
}

/* The root directory of the stack is that of the writable layer, and has to look like the image's.
 */
static bool make_upper(const struct boot_config* config, struct failure* failure) {
  static char top[LOWER_PATH_MAX];
  lower_path(top, config, lower_count(config) - 1);
  struct stat attributes;
  if (stat(top, &attributes) != 0 || mkdir(UPPER, 0755) != 0 || mkdir(WORK, 0755) != 0 ||
      chown(UPPER, attributes.st_uid, attributes.st_gid) != 0 ||
      chmod(UPPER, attributes.st_mode & 07777) != 0 || !copy_attributes(top, UPPER) ||
      utimensat(AT_FDCWD, UPPER, (struct timespec[]){{.tv_nsec = UTIME_OMIT}, attributes.st_mtim},
                0) != 0) {
    return fail(failure, MSB_STAGE_BOOT, errno, "cannot prepare the writable layer");
  }
  return true;
}

/* The reason in words that a file system leaves behind, "e overlay: ..." (fsopen(2)). */
static bool fail_overlay(int context, const char* step, struct failure* failure) {
  int code = errno;
  char message[256];
  ssize_t n = read(context, message, sizeof message);
  while (n > 0 && message[n - 1] == '\n') n--;
  if (n <= 2) return fail(failure, MSB_STAGE_BOOT, code, "cannot stack the layers: %s", step);
  return fail(failure, MSB_STAGE_BOOT, code, "cannot stack the layers: %s: %.*s", step, (int)n - 2,
              message + 2);
}

static bool set(int context, const char* key, const char* value, struct failure* failure) {
  if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0) == 0) return true;
  return fail_overlay(context, key, failure);
}

static bool configure_overlay(int context, const struct boot_config* config,
                              struct failure* failure) {
  if (!set(context, "source", "overlay", failure)) return false;
  /* overlayfs takes the topmost first. */
  for (size_t i = lower_count(config); i > 0; i--) {
    static char path[LOWER_PATH_MAX];
    lower_path(path, config, i - 1);
    if (!set(context, "lowerdir+", path, failure)) return false;
  }
  return set(context, "upperdir", UPPER, failure) && set(context, "workdir", WORK, failure);
}

/* Returns a detached mount, or -1. One by one, because hundreds of layers overflow the one page
 * that mount(2) takes. */
static int make_overlay(const struct boot_config* config, struct failure* failure) {
  int context = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
  if (context < 0) {
    fail(failure, MSB_STAGE_BOOT, errno, "cannot stack the layers: no overlayfs");
    return -1;
  }
  int root = -1;
  if (configure_overlay(context, config, failure)) {
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0) {
      fail_overlay(context, "create", failure);
    } else {
      root = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
      if (root < 0) fail_overlay(context, "mount", failure);
    }
  }
  close(context);
  return root;
}

bool root_enter(struct boot_config* config, struct failure* failure) {
  for (size_t i = 0; i < config->layer_count; i++) {
    if (!mount_layer(config->layers[i], i, failure)) return false;
  }
  if (!make_upper(config, failure) || !shares_open(config, HOST, failure)) return false;
  int root = make_overlay(config, failure);
  if (root < 0) return false;
  /*
   * The initramfs cannot be unmounted, nor left by pivot_root(2): the new root goes on top of it,
   * and from there not even a chroot(2) escape leads below
   * (Documentation/filesystems/ramfs-rootfs-initramfs.rst).
   */
  bool entered = umount2(STAGE, MNT_DETACH) == 0 &&
                 syscall(SYS_move_mount, root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) == 0 &&
                 fchdir(root) == 0 && chroot(".") == 0;
  if (!entered) fail(failure, MSB_STAGE_BOOT, errno, "cannot enter the root file system");
  close(root);
  return entered;
}

bool root_make_volumes(const struct boot_config* config, struct failure* failure) {
  for (size_t i = 0; i < config->volume_count; i++) {
    if (!make_directories(config->volumes[i])) {
      return fail(failure, MSB_STAGE_BOOT, errno, "cannot make the image's volume %.200s",
                  config->volumes[i]);
    }
  }
  return true;
}
