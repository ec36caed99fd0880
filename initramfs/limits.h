/* SPDX-License-Identifier: Apache-2.0 */
/* Open files of a program, as container engines set them: a soft limit that select(2) survives, a
 * hard one that is the kernel's own (fs.nr_open). */
#ifndef MSB_INITRAMFS_LIMITS_H
#define MSB_INITRAMFS_LIMITS_H

#define LIMIT_FILES_SOFT 1024u
#define LIMIT_FILES_HARD 1048576u

#endif
