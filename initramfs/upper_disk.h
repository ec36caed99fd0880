/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk that keeps the writable layer: a block device with an ext4 file system. Whatever is on
 * it the guest wrote, and nobody but the guest's kernel reads it.
 *
 * One with a journal is to last. What programs write there is on the disk a second later, so that
 * little is lost when the machine dies, and after an end in order nothing has to be recovered. One
 * without is as temporary as memory.
 */
#ifndef MSB_INITRAMFS_UPPER_DISK_H
#define MSB_INITRAMFS_UPPER_DISK_H

#include <stdbool.h>

#include "initramfs/failure.h"

/* Mounts that of `device`, a path, on `target`, and lets it grow to the device's size. Fails with
 * MSB_STAGE_BOOT. */
bool upper_disk_mount(const char* device, const char* target, struct failure* failure);

/* Has the kernel write dirty pages back soon, if the disk is to last. To be called once /proc is
 * mounted. */
void upper_disk_write_back_soon(void);

/* Brings everything onto the disk, if there is one; whatever writes there afterwards waits for
 * ever. */
void upper_disk_freeze(void);

#endif
