/* SPDX-License-Identifier: Apache-2.0 */
/* What every program expects below / besides the image's own files. */
#ifndef MSB_INITRAMFS_MOUNTS_H
#define MSB_INITRAMFS_MOUNTS_H

#include <stdbool.h>

#include "initramfs/failure.h"

/* Makes an absolute path of directories, mode 0755, as far as they are missing; symbolic links are
 * followed. The path is one of the boot file. Sets errno when it fails. */
bool make_directories(const char* path);

/* mkdir(2), where an existing directory is a success. Fails with MSB_STAGE_BOOT. */
bool make_directory(const char* path, struct failure* failure);

/* mount(2) of a file system that needs no source, on `target`, which is made when missing. Fails
 * with MSB_STAGE_BOOT. */
bool mount_at(const char* target, const char* type, unsigned long flags, const char* data,
              struct failure* failure);

/* Mounts /sys and /dev and what is below them in the root that was entered, and makes /tmp when the
 * image has none. */
bool mount_system(struct failure* failure);

/* Mounts /proc as the calling process's pid namespace has it. */
bool mount_proc(struct failure* failure);

#endif
