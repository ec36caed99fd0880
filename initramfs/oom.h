/* SPDX-License-Identifier: Apache-2.0 */
/* Whom the kernel killed for memory. It says so in its log, with the pid, before anything else can
 * reuse that pid. */
#ifndef MSB_INITRAMFS_OOM_H
#define MSB_INITRAMFS_OOM_H

#include <stddef.h>
#include <sys/types.h>

/* Bytes of what the kernel says that are told on. */
#define OOM_TEXT_MAX 512

/*
 * The pid (of the initial namespace) that one record of /dev/kmsg names as the victim of the
 * out-of-memory killer, or 0. `record` ends with NUL. What programs write into the log themselves
 * never counts.
 */
pid_t oom_victim_of_record(const char* record);

/* Opens /dev/kmsg behind all that it already holds. -1 without one. */
int oom_open(void);

/* What such a record says, as text: its first line without what /dev/kmsg puts before it. Ends with
 * NUL, and is cut where longer. */
void oom_text_of_record(const char* record, char text[OOM_TEXT_MAX]);

/* The next victim since the last call with what the kernel said, or 0 when there is no more. `kmsg`
 * may be -1. */
pid_t oom_next_victim(int kmsg, char text[OOM_TEXT_MAX]);

#endif
