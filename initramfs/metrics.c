/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/metrics.h"

#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "initramfs/proc.h"
#include "initramfs/text_lines.h"

#define MICROSECONDS 1000000u
#define NANOSECONDS 1000000000u

static uint64_t add(uint64_t a, uint64_t b) {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t multiply(uint64_t a, uint64_t b) {
  return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

/* /proc/stat counts in USER_HZ. */
static uint64_t microseconds(uint64_t ticks) {
  return multiply(ticks, MICROSECONDS / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* What comes behind `prefix`; NULL for another line. */
static const char* behind(const char* line, const char* prefix) {
  size_t length = strlen(prefix);
  return strncmp(line, prefix, length) == 0 ? line + length : NULL;
}

static bool take_numbers(const char** text, uint64_t* numbers, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!text_take_number(text, &numbers[i])) return false;
  }
  return true;
}

bool metrics_take_stat(void* metrics, const char* line) {
  struct msb_metrics* all = metrics;
  const char* rest = behind(line, "cpu");
  if (rest == NULL) return false; /* processors come first; interrupts can be kilobytes */
  if (*rest != ' ') {
    uint64_t number;
    if (text_take_number(&rest, &number) && *rest == ' ') all->processors++;
    return true;
  }
  enum { USER, NICE, SYSTEM, IDLE, IO_WAIT, INTERRUPTS, SOFT_INTERRUPTS, STEAL, TIMES };
  uint64_t times[TIMES];
  if (!take_numbers(&rest, times, TIMES)) return true;
  all->user_us = microseconds(add(times[USER], times[NICE]));
  all->system_us = microseconds(add(times[SYSTEM], add(times[INTERRUPTS], times[SOFT_INTERRUPTS])));
  all->idle_us = microseconds(add(times[IDLE], times[IO_WAIT]));
  all->steal_us = microseconds(times[STEAL]);
  return true;
}

bool metrics_take_meminfo(void* metrics, const char* line) {
  struct msb_metrics* all = metrics;
  uint64_t kib;
  const char* rest = behind(line, "MemTotal:");
  if (rest != NULL && text_take_number(&rest, &kib)) all->memory_total = multiply(kib, 1024);
  rest = behind(line, "MemAvailable:");
  if (rest == NULL) return true;
  if (text_take_number(&rest, &kib)) all->memory_available = multiply(kib, 1024);
  return false;
}

bool metrics_take_net_dev(void* metrics, const char* line) {
  struct msb_metrics* all = metrics;
  const char* colon = strchr(line, ':');
  if (colon == NULL) return true; /* the two lines of titles */
  const char* name = line + strspn(line, " ");
  if (behind(name, "lo:") != NULL) return true;
  /* bytes, packets, errs, drop, fifo, frame, compressed, multicast, and 8 of what was sent */
  enum { RECEIVED_BYTES, RECEIVED_PACKETS, SENT_BYTES = 8, SENT_PACKETS, COUNTERS };
  uint64_t counters[COUNTERS];
  const char* rest = colon + 1;
  if (!take_numbers(&rest, counters, COUNTERS)) return true;
  all->received_bytes = add(all->received_bytes, counters[RECEIVED_BYTES]);
  all->received_packets = add(all->received_packets, counters[RECEIVED_PACKETS]);
  all->sent_bytes = add(all->sent_bytes, counters[SENT_BYTES]);
  all->sent_packets = add(all->sent_packets, counters[SENT_PACKETS]);
  return true;
}

bool metrics_take_loadavg(void* metrics, const char* line) {
  struct msb_metrics* all = metrics;
  /* Three averages, then "running/all" tasks. */
  const char* slash = strchr(line, '/');
  uint64_t tasks;
  if (slash == NULL) return false;
  slash++;
  if (text_take_number(&slash, &tasks)) all->processes = tasks;
  return false;
}

bool metrics_take_vmstat(void* metrics, const char* line) {
  struct msb_metrics* all = metrics;
  const char* rest = behind(line, "oom_kill ");
  if (rest == NULL) return true;
  uint64_t kills;
  if (text_take_number(&rest, &kills)) all->oom_kills = kills;
  return false;
}

void metrics_read(struct msb_metrics* metrics) {
  memset(metrics, 0, sizeof *metrics);
  struct timespec now = {0};
  clock_gettime(CLOCK_BOOTTIME, &now);
  metrics->time_ns = (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec;
  proc_read("stat", metrics_take_stat, metrics);
  proc_read("meminfo", metrics_take_meminfo, metrics);
  /* Not /proc/net, which leads through /proc/self: the agent is in none of the process namespace
   * that this /proc shows, whose init shares the network with everybody. */
  proc_read("1/net/dev", metrics_take_net_dev, metrics);
  proc_read("loadavg", metrics_take_loadavg, metrics);
  proc_read("vmstat", metrics_take_vmstat, metrics);
  struct statvfs root;
  if (statvfs("/", &root) != 0) return;
  metrics->disk_total = multiply(root.f_blocks, root.f_frsize);
  metrics->disk_free = multiply(root.f_bfree, root.f_frsize);
  metrics->files_total = root.f_files;
  metrics->files_free = root.f_ffree;
}
