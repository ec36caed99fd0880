/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/upper_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "initramfs/ext4_superblock.h"
#include "initramfs/mounts.h"
#include "initramfs/system.h"
#include "protocol/msb_exec.h"

/* include/uapi/linux/ext4.h, which is newer than the headers of distributions. */
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

/*
 * Whatever the superblock says to do on errors: going on read-only is better than a panic.
 * "discard" makes deleted space a hole in the host's file again. Inode tables that nobody used are
 * holes there, and are not written just to be zero ("noinit_itable").
 */
#define OPTIONS "errors=remount-ro,discard,noinit_itable"
/* Seconds until what changed in directories and inodes is on the disk. */
#define JOURNAL_OPTIONS OPTIONS ",commit=1"

/* Hundredths of a second: how old dirty pages get, and how often they are looked for. */
#define WRITE_BACK_CENTISECONDS "50"

static bool is_lasting;
static int root = -1; /* of the file system */

static bool fail_disk(struct failure* failure, int code, const char* device) {
  return fail(failure, MSB_STAGE_BOOT, code, "cannot mount the writable layer on the disk %s",
              strrchr(device, '/') + 1);
}

/* Also says how large the device is, in bytes. */
static bool summarize_device(const char* device, struct ext4_summary* summary, uint64_t* size,
                             struct failure* failure) {
  uint8_t superblock[EXT4_SUPERBLOCK_SIZE];
  int file = open(device, O_RDONLY | O_CLOEXEC);
  if (file < 0) return fail_disk(failure, errno, device);
  ssize_t n = pread(file, superblock, sizeof superblock, EXT4_SUPERBLOCK_OFFSET);
  bool read = n == (ssize_t)sizeof superblock && ioctl(file, (int)BLKGETSIZE64, size) == 0;
  int code = n < 0 || n == (ssize_t)sizeof superblock ? errno : 0;
  close(file);
  if (!read && code != 0) return fail_disk(failure, code, device);
  if (read && ext4_summarize(superblock, summary)) return true;
  return fail(failure, MSB_STAGE_BOOT, 0,
              "cannot mount the writable layer: the disk %s holds no ext4 file system",
              strrchr(device, '/') + 1);
}

/* A disk can be made larger between two starts. One that does not follow is as good as it was. */
static void grow(const struct ext4_summary* summary, uint64_t size) {
  uint64_t blocks = size / summary->block_size;
  struct failure failure;
  if (blocks > summary->blocks && ioctl(root, (int)EXT4_IOC_RESIZE_FS, &blocks) != 0) {
    fail(&failure, MSB_STAGE_BOOT, errno, "the writable layer stays smaller than its disk");
    system_log(&failure);
  }
}

bool upper_disk_mount(const char* device, const char* target, struct failure* failure) {
  struct ext4_summary summary;
  uint64_t size;
  if (!summarize_device(device, &summary, &size, failure) || !make_directory(target, failure)) {
    return false;
  }
  is_lasting = summary.has_journal;
  if (mount(device, target, "ext4", 0, is_lasting ? JOURNAL_OPTIONS : OPTIONS) != 0) {
    return fail_disk(failure, errno, device);
  }
  root = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return fail_disk(failure, errno, device);
  grow(&summary, size);
  return true;
}

static void set(const char* path, const char* value) {
  int file = open(path, O_WRONLY | O_CLOEXEC);
  bool written = file >= 0 && write(file, value, strlen(value)) == (ssize_t)strlen(value);
  struct failure failure;
  if (!written) {
    fail(&failure, MSB_STAGE_BOOT, errno, "cannot set %s", path);
    system_log(&failure);
  }
  if (file >= 0) close(file);
}

void upper_disk_write_back_soon(void) {
  if (!is_lasting) return;
  set("/proc/sys/vm/dirty_expire_centisecs", WRITE_BACK_CENTISECONDS);
  set("/proc/sys/vm/dirty_writeback_centisecs", WRITE_BACK_CENTISECONDS);
}

/* Unlike unmounting or a read-only remount it goes whoever has files open, also in the stack above
 * it; and like these it leaves an empty journal (ext4_freeze() in fs/ext4/super.c). */
void upper_disk_freeze(void) {
  if (!is_lasting || ioctl(root, (int)FIFREEZE, 0) == 0) return;
  struct failure failure;
  fail(&failure, MSB_STAGE_BOOT, errno, "cannot finish the writable layer");
  system_log(&failure);
}
