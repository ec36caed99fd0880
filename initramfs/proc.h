/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs' /proc, as only the agent sees it: whoever is root in the machine can mount a file
 * system of their own at that path, or below it, and have the agent wait for its answers.
 */
#ifndef MSB_INITRAMFS_PROC_H
#define MSB_INITRAMFS_PROC_H

#include "initramfs/text_lines.h"

/* Keeps what is mounted at /proc now; to be called before a program runs. Without it, or when the
 * kernel refuses, the path is used. */
void proc_keep(void);

/* Opens a directory of it, "." or "1/fd". Returns -1, and errno. */
int proc_open_directory(const char* path);

/* The lines of a file of it, as text_read(). */
void proc_read(const char* path, line_taker take, void* context);

#endif
