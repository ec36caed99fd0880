/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pid namespace that all programs run in. Its first process is a tiny init: orphans become its
 * children and vanish without a trace, reboot(2) kills it instead of the machine, and its death
 * ends every program.
 */
#ifndef MSB_INITRAMFS_NAMESPACE_H
#define MSB_INITRAMFS_NAMESPACE_H

#include <stdbool.h>
#include <sys/types.h>

#include "initramfs/failure.h"
#include "protocol/msb_exec.h"

struct namespace_init {
  pid_t pid;
  int report; /* until namespace_wait_ready() */
};

/*
 * Makes the namespace and its init. All later children of the caller belong to it; the caller does
 * not, and no program sees it. The init mounts /proc meanwhile.
 */
bool namespace_start(struct namespace_init* init, struct failure* failure);

/* Waits until /proc is mounted. */
bool namespace_wait_ready(struct namespace_init* init, struct failure* failure);

/* The programs' namespace, for whoever forks beside it. */
struct namespace_beside {
  pid_t init;    /* -1 when there is none */
  bool restored; /* as namespace_fork_beside() says */
};

/*
 * Forks a child of the caller into the caller's own namespace, where no program sees or traces it.
 * As fork(2) otherwise. `init` is that of the programs' namespace, or -1 when there is none. False
 * in *restored: the init is dead, and later children would not be in its namespace any more.
 */
pid_t namespace_fork_beside(pid_t init, bool* restored);

/*
 * What the death of the init means: MSB_BYE_RESTART or MSB_BYE_POWER_OFF when a process called
 * reboot(2), MSB_BYE_FAILED otherwise. `status` is wait(2)'s.
 */
enum msb_bye_reason namespace_death(int status);

/*
 * Kills whatever runs in the namespace and reaps all children, for at most `timeout_ms`. Returns
 * `reason`, or that of a reboot(2) that came before and was not noticed yet.
 */
enum msb_bye_reason namespace_end(const struct namespace_init* init, int timeout_ms,
                                  enum msb_bye_reason reason);

#endif
