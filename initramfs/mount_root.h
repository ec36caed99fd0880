/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MSB_INITRAMFS_MOUNT_ROOT_H
#define MSB_INITRAMFS_MOUNT_ROOT_H

#include <stdbool.h>

/* Whether something is mounted at `path`, in the second case of the file system that `descriptor`
 * belongs to. Of a remote one that is mounted there the kernel goes by what it has cached; on the
 * way to it it may wait. */
bool is_mount_root(const char* path);
bool is_mount_root_of(const char* path, int descriptor);

#endif
