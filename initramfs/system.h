/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's own settings, apart from its mounts. */
#ifndef MSB_INITRAMFS_SYSTEM_H
#define MSB_INITRAMFS_SYSTEM_H

#include "initramfs/failure.h"

/* Standard descriptors, signal mask, umask and limits of PID 1, which all programs are made from.
 */
void system_prepare_process(void);

/* Brings the loopback interface up. Does nothing without a network in the kernel. */
void system_start_loopback(void);

/*
 * Names the machine, for the kernel and in the files that programs read: /etc/hostname, and
 * /etc/hosts when the image has none. `hostname` may be NULL.
 */
void system_set_hostname(const char* hostname);

/* A line in the kernel log, for when nothing else can be told. */
void system_log(const struct failure* failure);

/* Resets the machine. */
_Noreturn void system_reset(void);

#endif
