/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/system.h"

#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "initramfs/limits.h"

void system_prepare_process(void) {
  /* The kernel opens /dev/console for PID 1, if there is one. No pipe or connection may take these
   * numbers. */
  int null = open("/dev/null", O_RDWR);
  while (null >= 0 && null < 2) null = dup(null);
  if (null > 2) close(null);
  /* Nothing interrupts: children are told of by a signalfd, lost pipes by EPIPE. */
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  umask(022);
  struct rlimit files = {.rlim_cur = LIMIT_FILES_HARD, .rlim_max = LIMIT_FILES_HARD};
  setrlimit(RLIMIT_NOFILE, &files);
  /* What bounds processes is the memory of the machine (kernel.threads-max), not who they belong
   * to. */
  struct rlimit processes = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
  setrlimit(RLIMIT_NPROC, &processes);
}

void system_start_loopback(void) {
  int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (any < 0) return;
  struct ifreq request = {.ifr_name = "lo"};
  request.ifr_flags = IFF_UP;
  ioctl(any, SIOCSIFFLAGS, &request);
  close(any);
}

void system_log(const struct failure* failure) {
  char line[sizeof failure->text + 32];
  int length = snprintf(line, sizeof line, "<3>msb-init: %s\n", failure->text);
  int kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
  if (kmsg < 0) return;
  ssize_t ignored = write(kmsg, line, (size_t)length);
  (void)ignored;
  close(kmsg);
}

_Noreturn void system_reset(void) {
  /* The kernel runs with reboot=t, which ends the machine by a triple fault. */
  reboot(RB_AUTOBOOT);
  /* Not reached, unless the kernel refuses; the end of PID 1 is a panic, which ends the machine
   * too. */
  _exit(1);
}
