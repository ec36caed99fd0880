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
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "initramfs/file_layers.h"
#include "initramfs/mounts.h"
#include "initramfs/shares.h"
#include "initramfs/upper_disk.h"
#include "protocol/msb_boot.h"
#include "protocol/msb_exec.h"

/*
 * All that the root is made of stays mounted where the root covers it, and nothing leads there:
 * what is shared later is cloned from the device, and the file service compares the layers.
 */
#define STAGE "/stage" /* a tmpfs, and a directory of the initramfs */
#define HOST "/host"   /* the virtio-fs device */
#define DEVICES STAGE "/dev"
#define DISK STAGE "/disk" /* the writable layer's file system, when it is not the stage itself */
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

/* The device's node is needed only until the device is mounted. */
static bool mount_disk(const char* name, struct failure* failure) {
  char device[sizeof DEVICES + sizeof "/vda"];
  snprintf(device, sizeof device, DEVICES "/%s", name);
  if (!mount_at(DEVICES, "devtmpfs", MS_NOSUID | MS_NOEXEC, NULL, failure)) return false;
  bool mounted = upper_disk_mount(device, DISK, failure);
  umount2(DEVICES, MNT_DETACH);
  return mounted;
}

/* Where the writable layer is: two directories of one file system. */
struct upper_paths {
  const char* upper;
  const char* draft; /* of `upper`, until it is complete */
  const char* work;
};

static const struct upper_paths* upper_paths(const struct boot_config* config) {
  static const struct upper_paths in_memory = {STAGE "/upper", STAGE "/upper.new", STAGE "/work"};
  static const struct upper_paths on_disk = {DISK "/upper", DISK "/upper.new", DISK "/work"};
  return config->upper != NULL ? &on_disk : &in_memory;
}

/* No symbolic link, which would lead out of the disk. */
static bool is_directory(const char* path) {
  struct stat attributes;
  if (lstat(path, &attributes) != 0) return false;
  if (S_ISDIR(attributes.st_mode)) return true;
  errno = ENOTDIR;
  return false;
}

/* The root directory of the stack is that of the writable layer, and has to look like the image's.
 * It gets its name last: a machine that dies here leaves an empty draft. */
static bool make_upper(const struct boot_config* config, const struct upper_paths* paths) {
  static char top[LOWER_PATH_MAX];
  lower_path(top, config, lower_count(config) - 1);
  struct stat attributes;
  rmdir(paths->draft);
  return stat(top, &attributes) == 0 && mkdir(paths->draft, 0755) == 0 &&
         chown(paths->draft, attributes.st_uid, attributes.st_gid) == 0 &&
         chmod(paths->draft, attributes.st_mode & 07777) == 0 &&
         copy_attributes(top, paths->draft) &&
         utimensat(AT_FDCWD, paths->draft,
                   (struct timespec[]){{.tv_nsec = UTIME_OMIT}, attributes.st_mtim}, 0) == 0 &&
         rename(paths->draft, paths->upper) == 0;
}

/* What an earlier start made stays as it is. */
static bool prepare_upper(const struct boot_config* config, struct failure* failure) {
  const struct upper_paths* paths = upper_paths(config);
  if (config->upper != NULL && !mount_disk(config->upper, failure)) return false;
  bool ready = is_directory(paths->upper) || (errno == ENOENT && make_upper(config, paths));
  ready =
      ready && (mkdir(paths->work, 0755) == 0 || (errno == EEXIST && is_directory(paths->work)));
  return ready || fail(failure, MSB_STAGE_BOOT, errno, "cannot prepare the writable layer");
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
  const struct upper_paths* paths = upper_paths(config);
  return set(context, "upperdir", paths->upper, failure) &&
         set(context, "workdir", paths->work, failure);
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

/* What overlayfs makes of a working directory that it cannot use (ovl_make_workdir() in
 * fs/overlayfs/super.c). */
static bool check_writable(int root, struct failure* failure) {
  struct statvfs status;
  if (fstatvfs(root, &status) == 0 && (status.f_flag & ST_RDONLY) == 0) return true;
  return fail(failure, MSB_STAGE_BOOT, EROFS, "the writable layer is damaged");
}

/* --- the layers, for the file service --- */

static size_t stacked;

/* A stack of the layers without a writable one, which is mounted nowhere and ends with its
 * descriptor. Its base is the stage, where the layers have numbers. */
static int stack_layers(int base) {
  int context = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
  if (context < 0) return -1;
  bool good = fchdir(base) == 0 &&
              syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", "layers", 0) == 0;
  for (size_t i = stacked; good && i > 0; i--) {
    char name[LAYER_PATH_MAX];
    snprintf(name, sizeof name, "%zu", i - 1);
    good = syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "lowerdir+", name, 0) == 0;
  }
  good = good && syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0;
  int mounted = good ? (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY) : -1;
  int code = errno;
  close(context);
  errno = code;
  return mounted;
}

/* overlayfs wants two layers at least where none is writable. */
static int open_lower(int base) {
  return stacked > 1 ? stack_layers(base) : openat(base, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* The stage is mounted where the new root covers it, as the host's device is. */
static bool keep_layers(const struct boot_config* config, struct failure* failure) {
  char lower[LOWER_PATH_MAX];
  stacked = lower_count(config);
  lower_path(lower, config, 0);
  struct file_layers layers = {
      .upper = open(upper_paths(config)->upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
      .base = open(stacked > 1 ? STAGE : lower, O_PATH | O_DIRECTORY | O_CLOEXEC),
      .open_lower = open_lower,
  };
  if (layers.upper < 0 || layers.base < 0) {
    return fail(failure, MSB_STAGE_BOOT, errno, "cannot keep the layers open");
  }
  file_layers_set(&layers);
  file_layers_made("/etc");
  file_layers_made("/tmp");
  for (size_t i = 0; i < config->volume_count; i++) file_layers_made(config->volumes[i]);
  for (size_t i = 0; i < config->share_count; i++) file_layers_made(config->shares[i].target);
  return true;
}

bool root_enter(struct boot_config* config, struct failure* failure) {
  for (size_t i = 0; i < config->layer_count; i++) {
    if (!mount_layer(config->layers[i], i, failure)) return false;
  }
  if (!prepare_upper(config, failure) || !shares_open(config, HOST, failure)) return false;
  int root = make_overlay(config, failure);
  if (root < 0 || !check_writable(root, failure) || !keep_layers(config, failure)) return false;
  /*
   * The initramfs cannot be unmounted, nor left by pivot_root(2): the new root goes on top of it,
   * and from there not even a chroot(2) escape leads below
   * (Documentation/filesystems/ramfs-rootfs-initramfs.rst).
   */
  bool entered = syscall(SYS_move_mount, root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) == 0 &&
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
