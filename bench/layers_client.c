/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a command again and again, as a guest's program, and says what each run took.
 *
 * usage: layers_client OPTIONS LAYERS COMMAND…
 *
 * LAYERS are EROFS images, lowest first, separated by commas: block devices, or files, which EROFS
 * reads itself (no loop device). They are mounted with OPTIONS, stacked as the init stacks an
 * image's, and the command runs in there. Empty LAYERS: it runs in the root that there is.
 *
 * A line on standard input asks for a run: "warm", or "cold", before which the guest's kernel
 * forgets what it knows of files. One line on standard output at the start and after each run:
 * "SECONDS FREE AVAILABLE CACHED", memory in KiB.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STAGE "/tmp/layers"

extern char** environ;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void make(const char* path) {
  if (mkdir(path, 0755) != 0 && errno != EEXIST) err(1, "cannot make the directory %s", path);
}

static void attach(const char* source, const char* target, const char* type, unsigned long flags,
                   const char* options) {
  if (mount(source, target, type, flags, options) != 0) {
    err(1, "cannot mount %s (%s, options \"%s\")", source, type, options);
  }
}

static void enter(const char* options, char* layers) {
  if (unshare(CLONE_NEWNS) != 0) err(1, "cannot make a mount namespace");
  attach("none", "/", "none", MS_REC | MS_PRIVATE, "");
  make(STAGE);
  attach("stage", STAGE, "tmpfs", 0, "");
  make(STAGE "/upper");
  make(STAGE "/work");
  make(STAGE "/root");
  /* overlayfs takes the topmost first. */
  char lower[512] = "";
  int count = 0;
  for (char* layer = strtok(layers, ","); layer != NULL; layer = strtok(NULL, ",")) {
    char target[32];
    snprintf(target, sizeof target, STAGE "/%d", count++);
    make(target);
    attach(layer, target, "erofs", MS_RDONLY, options);
    char more[sizeof lower];
    int length = snprintf(more, sizeof more, "%s%s%s", target, *lower == '\0' ? "" : ":", lower);
    if (length >= (int)sizeof more) errx(1, "%d layers are too many", count);
    memcpy(lower, more, sizeof lower);
  }
  char stack[sizeof lower + 100];
  snprintf(stack, sizeof stack, "lowerdir=%s,upperdir=" STAGE "/upper,workdir=" STAGE "/work",
           lower);
  attach("overlay", STAGE "/root", "overlay", 0, stack);
  attach("/dev", STAGE "/root/dev", "none", MS_BIND | MS_REC, "");
  attach("proc", STAGE "/root/proc", "proc", 0, "");
  if (chroot(STAGE "/root") != 0 || chdir("/") != 0) err(1, "cannot enter the layers");
}

static double run(char** command) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  double start = now();
  pid_t child;
  int code = posix_spawnp(&child, *command, &actions, NULL, command, environ);
  if (code != 0) errx(1, "cannot start %s: %s", *command, strerror(code));
  int status;
  if (waitpid(child, &status, 0) != child) err(1, "cannot wait for %s", *command);
  if (status != 0) errx(1, "%s failed (wait status %d)", *command, status);
  posix_spawn_file_actions_destroy(&actions);
  return now() - start;
}

static void forget(int caches) {
  sync();
  if (write(caches, "3", 1) != 1) err(1, "cannot drop the caches");
}

static long entry(const char* text, const char* name) {
  const char* line = strstr(text, name);
  if (line == NULL) errx(1, "/proc/meminfo has no %s", name);
  return strtol(line + strlen(name), NULL, 10);
}

static void report(int meminfo, double seconds) {
  char text[8192];
  ssize_t length = pread(meminfo, text, sizeof text - 1, 0);
  if (length < 0) err(1, "cannot read /proc/meminfo");
  text[length] = '\0';
  /* What the kernel keeps of block devices themselves, EROFS' metadata for one, is "Buffers". */
  printf("%.6f %ld %ld %ld\n", seconds, entry(text, "MemFree:"), entry(text, "MemAvailable:"),
         entry(text, "Buffers:") + entry(text, "\nCached:"));
  fflush(stdout);
}

int main(int argc, char** argv) {
  if (argc < 4) errx(2, "usage: layers_client OPTIONS LAYERS COMMAND…");
  int meminfo = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
  int caches = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
  if (meminfo < 0 || caches < 0) err(1, "cannot open files of /proc");
  if (*argv[2] != '\0') enter(argv[1], argv[2]);
  report(meminfo, 0);
  char line[16];
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (strcmp(line, "cold\n") == 0) forget(caches);
    report(meminfo, run(argv + 3));
  }
  return 0;
}
