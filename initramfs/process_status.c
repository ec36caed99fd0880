/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "initramfs/connection.h"
#include "initramfs/process.h"

bool process_is_over(const struct process* process) {
  if (process->state == PROCESS_STATE_ENDED) return true;
  /* What a terminal still holds is not known before it has been read. */
  return process->state == PROCESS_STATE_DRAINING && process->slave < 0;
}

/* What was read, and what is known to be there. */
static void count_bytes(const struct process* process, uint64_t offsets[MSB_STREAMS]) {
  bool draining = process->state == PROCESS_STATE_DRAINING && process->slave < 0;
  for (unsigned i = 0; i < MSB_STREAMS; i++) {
    offsets[i] = process->streams[i].end;
    if (draining) offsets[i] += i < PROCESS_PIPES ? process->owed[i] : process->channel_ready;
  }
}

static uint64_t microseconds(const struct timeval* time) {
  return (uint64_t)time->tv_sec * 1000000u + (uint64_t)time->tv_usec;
}

uint32_t process_exited(const struct process* process, uint8_t payload[MSB_MAX_SMALL]) {
  struct msb_exited exited = {.process = process->id,
                              .user_us = microseconds(&process->usage.ru_utime),
                              .system_us = microseconds(&process->usage.ru_stime),
                              .max_rss_kib = (uint64_t)process->usage.ru_maxrss};
  size_t text = 0;
  if (WIFSIGNALED(process->status)) {
    exited.kind = MSB_EXIT_SIGNAL;
    exited.value = (uint32_t)WTERMSIG(process->status);
    if (WCOREDUMP(process->status)) exited.flags |= MSB_EXITED_CORE_DUMPED;
    text = strlen(process->memory_text);
    if (text > 0) exited.flags |= MSB_EXITED_OUT_OF_MEMORY;
  } else {
    exited.kind = MSB_EXIT_STATUS;
    exited.value = (uint32_t)WEXITSTATUS(process->status);
  }
  if (process->timed_out) exited.flags |= MSB_EXITED_TIMED_OUT;
  count_bytes(process, exited.offsets);
  memcpy(payload, &exited, sizeof exited);
  memcpy(payload + sizeof exited, process->memory_text, text);
  return (uint32_t)(sizeof exited + text);
}

uint32_t process_describe(const struct process* process, uint8_t payload[MSB_MAX_SMALL]) {
  bool runs = process->state == PROCESS_STATE_RUNNING || process->state == PROCESS_STATE_ABANDONED;
  struct msb_process fixed = {.process = process->id,
                              .pid = process->guest_pid,
                              .state = runs ? MSB_PROCESS_RUNS : MSB_PROCESS_ENDED,
                              .flags = process->flags,
                              .attached = process->connection != NULL,
                              .started_ns = process->started_ns};
  count_bytes(process, fixed.offsets);
  for (unsigned i = 0; i < MSB_STREAMS; i++) fixed.oldest[i] = process->streams[i].first;
  memcpy(payload, &fixed, sizeof fixed);
  memcpy(payload + sizeof fixed, process->names, process->names_length);
  return (uint32_t)sizeof fixed + process->names_length;
}
