/* SPDX-License-Identifier: Apache-2.0 */
/* Starting a program: from a START request to execve(2) in a child. */
#ifndef MSB_INITRAMFS_SPAWN_H
#define MSB_INITRAMFS_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "initramfs/failure.h"
#include "initramfs/start_request.h"

/* The agent's side of a child. All descriptors are non-blocking and belong to the caller; -1 for
 * what the request does not ask for. */
struct spawned {
  pid_t pid;
  int input;   /* write end of its standard input, or a terminal's master */
  int output;  /* read end of its standard output, or the same terminal's master once more */
  int error;   /* read end of its standard error */
  int channel; /* other end of its channel */
  int slave;   /* the terminal as the process has it: while this is open, the master never hangs up
                  because the process closed and opened it */
  int report;  /* hangs up once the program runs, or has failed to: then ask spawn_result() */
};

/*
 * Forks a child that becomes what `request` asks for. It does not wait for the outcome: entering a
 * directory or executing a file can take forever where a program in the guest serves that file
 * system. Fails with MSB_STAGE_RESOURCES.
 */
bool spawn(const struct start_request* request, struct spawned* spawned, struct failure* failure);

/*
 * What became of the child whose `report` hung up. True if the program runs; *pid is then its pid
 * in its own namespace. Otherwise fails with the stage and errno of the child, which has exited or
 * is about to.
 */
bool spawn_result(int report, const struct start_request* request, uint32_t* pid,
                  struct failure* failure);

#endif
