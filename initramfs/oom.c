/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/oom.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A record is at most PRINTK_MESSAGE_MAX bytes (kernel/printk/internal.h); read(2) returns one at a
 * time. */
#define RECORD_MAX 2048u

/* Read at most so many records in one call, so that a program that floods the log does not keep the
 * agent busy. */
#define RECORDS_MAX 10000

pid_t oom_victim_of_record(const char* record) {
  /* "priority,sequence,time,flags;message" (Documentation/ABI/testing/dev-kmsg). The priority's
   * bits from 3 up are the facility: 0 is the kernel's, and devkmsg_write() gives it to nobody
   * else. */
  char* after_priority;
  unsigned long priority = strtoul(record, &after_priority, 10);
  if (after_priority == record || *after_priority != ',' || priority > 7) return 0;
  const char* message = strchr(record, ';');
  if (message == NULL) return 0;
  message++;
  /* __oom_kill_process() in mm/oom_kill.c: "%s: Killed process %d (%s) ...". */
  if (strncmp(message, "Out of memory", 13) != 0 &&
      strncmp(message, "Memory cgroup out of memory", 27) != 0) {
    return 0;
  }
  static const char killed[] = ": Killed process ";
  const char* found = strstr(message, killed);
  if (found == NULL) return 0;
  return (pid_t)strtol(found + sizeof killed - 1, NULL, 10);
}

void oom_text_of_record(const char* record, char text[OOM_TEXT_MAX]) {
  const char* message = strchr(record, ';');
  message = message == NULL ? record : message + 1;
  size_t length = strcspn(message, "\n");
  if (length >= OOM_TEXT_MAX) length = OOM_TEXT_MAX - 1;
  memcpy(text, message, length);
  text[length] = '\0';
}

int oom_open(void) {
  int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (kmsg >= 0) lseek(kmsg, 0, SEEK_END);
  return kmsg;
}

pid_t oom_next_victim(int kmsg, char text[OOM_TEXT_MAX]) {
  if (kmsg < 0) return 0;
  for (int i = 0; i < RECORDS_MAX; i++) {
    char record[RECORD_MAX + 1];
    ssize_t length = read(kmsg, record, RECORD_MAX);
    if (length < 0) {
      /* EPIPE: the log wrapped, and reading goes on at what is left of it. */
      if (errno == EPIPE || errno == EINTR) continue;
      return 0;
    }
    record[length] = '\0';
    pid_t victim = oom_victim_of_record(record);
    if (victim > 0) {
      oom_text_of_record(record, text);
      return victim;
    }
  }
  return 0;
}
