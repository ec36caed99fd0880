/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscall_probe NUMBER...: prints those of the system calls that the kernel does not have, a line
 * each. Every call is made in a process of its own with arguments that no call accepts, so that it
 * fails before it does anything; one that waits nevertheless is ended after a second.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MISSING 77 /* exit status */

static void make_call(long number) {
  /* These two say ENOSYS to an operation that they do not know: 0 is to read, and to wait. */
  long first = number == SYS_modify_ldt ? 0 : -1;
  long second = number == SYS_futex ? 0 : -1;
  /* By hand, since vfork(2) returns twice on one stack and must not leave this frame. */
  long result;
  register long fourth __asm__("r10") = -1;
  register long fifth __asm__("r8") = -1;
  register long sixth __asm__("r9") = -1;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(first), "S"(second), "d"(-1L), "r"(fourth), "r"(fifth),
                     "r"(sixth)
                   : "rcx", "r11", "memory");
  _exit(result == -ENOSYS ? MISSING : 0);
}

int main(int argc, char** argv) {
  for (int i = 1; i < argc; i++) {
    char* end;
    long number = strtol(argv[i], &end, 10);
    if (*end != '\0') return 2;
    pid_t child = fork();
    if (child < 0) {
      perror("fork");
      return 1;
    }
    if (child == 0) {
      setsid(); /* what reaches a process group reaches only this one */
      signal(SIGALRM, SIG_DFL);
      alarm(1);
      make_call(number);
    }
    int status;
    if (waitpid(child, &status, 0) != child) {
      perror("waitpid");
      return 1;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == MISSING) printf("%ld\n", number);
  }
  puts("end");
  return fflush(stdout) == 0 ? 0 : 1;
}
