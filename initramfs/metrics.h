/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's counters of the whole machine, as METRICS answers them (docs/exec-protocol.md). */
#ifndef MSB_INITRAMFS_METRICS_H
#define MSB_INITRAMFS_METRICS_H

#include <stdbool.h>

#include "protocol/msb_exec.h"

/*
 * One line of each file (proc(5)), for text_take() with a struct msb_metrics as context. A line
 * that is not as the kernel writes it changes nothing; what does not fit 64 bits stays at their
 * largest value. False when the lines that follow say nothing of interest.
 */
bool metrics_take_stat(void* metrics, const char* line);
bool metrics_take_meminfo(void* metrics, const char* line);
bool metrics_take_net_dev(void* metrics, const char* line);
bool metrics_take_loadavg(void* metrics, const char* line);
bool metrics_take_vmstat(void* metrics, const char* line);

/* Reads them all. What the kernel does not tell is 0. */
void metrics_read(struct msb_metrics* metrics);

#endif
