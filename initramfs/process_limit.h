/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many processes and threads the sandbox may have at a time.
 *
 * It is the limit of a control group which has the programs in it and not the agent.
 * kernel.threads-max would count the agent and the kernel's own threads too, and leave nothing to
 * start a program with that ends a fork bomb; RLIMIT_NPROC does not bind root. Whoever joins a
 * group is counted and not refused (pids_can_attach() in kernel/cgroup/pids.c), so that `exec`
 * works when the sandbox is full: what it starts cannot fork then, but it runs.
 *
 * Root in the sandbox cannot lift it. What is mounted at its /sys/fs/cgroup begins at the group,
 * whose own files a cgroup namespace does not let be written there ("nsdelegate"), and no process
 * of the sandbox is in another one.
 */
#ifndef MSB_INITRAMFS_PROCESS_LIMIT_H
#define MSB_INITRAMFS_PROCESS_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "initramfs/failure.h"

/* To be called before the first process of the sandbox is forked, and before its /sys/fs/cgroup is
 * mounted. Fails with MSB_STAGE_BOOT. */
bool process_limit_set(uint32_t processes, struct failure* failure);

/* In a child that is to become one of the sandbox's. Returns an errno; 0 also without a limit. */
int process_limit_join(void);

#endif
