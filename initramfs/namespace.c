/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "initramfs/clock.h"
#include "initramfs/mounts.h"
#include "protocol/msb_exec.h"

/* Best effort: what a kernel was built without cannot be set. */
static void write_setting(const char* path, const char* value) {
  int file = open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  ssize_t ignored = write(file, value, strlen(value));
  (void)ignored;
  close(file);
}

/* Never returns: the namespace lives as long as this process does. */
static _Noreturn void run_init(int report) {
  setsid();
  /* Orphans that end are reaped by the kernel itself then (wait(2), notes). */
  signal(SIGCHLD, SIG_IGN);
  struct failure failure;
  memset(&failure, 0, sizeof failure);
  mount_proc(&failure);
  /* The out-of-memory killer takes programs, not this process; the agent is PID 1 of the machine
   * and safe anyway. */
  write_setting("/proc/self/oom_score_adj", "-1000");
  /* As container engines have it: no program needs privilege to ping or to serve port 80. */
  write_setting("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
  write_setting("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
  ssize_t ignored = write(report, &failure, sizeof failure);
  (void)ignored;
  syscall(SYS_close_range, 3u, ~0u, 0u);
  while (true) pause();
}

bool namespace_start(struct namespace_init* init, struct failure* failure) {
  int report[2];
  if (unshare(CLONE_NEWPID) != 0 || pipe2(report, O_CLOEXEC) != 0) {
    return fail(failure, MSB_STAGE_BOOT, errno, "cannot make the process namespace");
  }
  init->pid = fork();
  if (init->pid == 0) run_init(report[1]);
  if (init->pid < 0)
    return fail(failure, MSB_STAGE_BOOT, errno, "cannot start the namespace's init");
  close(report[1]);
  init->report = report[0];
  return true;
}

bool namespace_wait_ready(struct namespace_init* init, struct failure* failure) {
  struct failure reported;
  /* Less than PIPE_BUF: never in pieces. */
  ssize_t n = read(init->report, &reported, sizeof reported);
  close(init->report);
  if (n != (ssize_t)sizeof reported) {
    return fail(failure, MSB_STAGE_BOOT, 0, "the namespace's init died");
  }
  if (reported.stage == 0) return true;
  *failure = reported;
  return false;
}

/* By pidfd (setns(2), Linux 5.8), since the /proc that there is shows the programs' namespace. */
static int open_process(pid_t pid) {
  return (int)syscall(SYS_pidfd_open, pid, 0u);
}

pid_t namespace_fork_beside(pid_t init, bool* restored) {
  *restored = true;
  if (init < 0) return fork();
  pid_t pid = -1;
  int own = open_process(getpid());
  int programs = open_process(init);
  if (own >= 0 && programs >= 0 && setns(own, CLONE_NEWPID) == 0) {
    pid = fork();
    if (pid == 0) return 0;
    int code = errno;
    *restored = setns(programs, CLONE_NEWPID) == 0;
    errno = code;
  }
  int code = errno;
  if (own >= 0) close(own);
  if (programs >= 0) close(programs);
  errno = code;
  return pid;
}

/* reboot_pid_ns() and zap_pid_ns_processes() in kernel/pid_namespace.c. */
enum msb_bye_reason namespace_death(int status) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGHUP) return MSB_BYE_RESTART;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) return MSB_BYE_POWER_OFF;
  return MSB_BYE_FAILED;
}

enum msb_bye_reason namespace_end(const struct namespace_init* init, int timeout_ms,
                                  enum msb_bye_reason reason) {
  if (init->pid > 0) kill(init->pid, SIGKILL);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  long deadline = clock_now_ms() + timeout_ms;
  while (true) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
      if (pid == init->pid && namespace_death(status) != MSB_BYE_FAILED) {
        reason = namespace_death(status);
      }
    }
    long left = deadline - clock_now_ms();
    if (pid < 0 || left <= 0) return reason; /* no children, or one that cannot die */
    struct timespec wait = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
    sigtimedwait(&child, NULL, &wait);
  }
}
