/* SPDX-License-Identifier: Apache-2.0 */
/* Whom the kernel killed for memory. It says so in its log, with the pid, before anything else can
 * reuse that pid. */
#ifndef MSB_INITRAMFS_OOM_H
#define MSB_INITRAMFS_OOM_H

#include <sys/types.h>

/*
 * The pid (of the initial namespace) that one record of /dev/kmsg names as the victim of the
 * out-of-memory killer, or 0. `record` ends with NUL. What programs write into the log themselves
 * never counts.
 */
pid_t oom_victim_of_record(const char* record);

/* Opens /dev/kmsg behind all that it already holds. -1 without one. */
int oom_open(void);

/* The next victim since the last call, or 0 when there is no more. `kmsg` may be -1. */
pid_t oom_next_victim(int kmsg);

#endif
