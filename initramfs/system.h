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

/* A line in the kernel log, for when nothing else can be told. */
void system_log(const struct failure* failure);

/* Resets the machine. */
_Noreturn void system_reset(void);

#endif
