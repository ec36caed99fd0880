/* SPDX-License-Identifier: Apache-2.0 */
/* Pseudo-terminals (pty(7)): the agent's side is the master. */
#ifndef MSB_INITRAMFS_TERMINAL_H
#define MSB_INITRAMFS_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

/*
 * More than the kernel holds between a program and the master: 8 KiB on the way
 * (pty_common_install() in drivers/tty/pty.c) and 4 KiB to be read (N_TTY_BUF_SIZE). What a process
 * wrote before a moment is within so many bytes that are read after it.
 */
#define TERMINAL_BUFFERED_MAX 65536u

/*
 * Opens a new pseudo-terminal of the devpts of the caller's /dev. Both descriptors are the
 * caller's. The master does not block. False, and errno.
 */
bool terminal_open(uint16_t rows, uint16_t columns, int* master, int* slave);

/* False, and errno, when the descriptor is no terminal. */
bool terminal_resize(int master, uint16_t rows, uint16_t columns);

/* The character that ends the input, as the terminal is set now; -1 when it has none. */
int terminal_end_of_file(int slave);

/* Whether nothing that was written to the slave is still to be read from the master. */
bool terminal_is_drained(int master);

#endif
