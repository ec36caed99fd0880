/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "initramfs/limits.h"
#include "protocol/msb_exec.h"

/* Where programs are looked for when the variables have no PATH; container engines have the same.
 */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* What a child writes into its report: once before anything can fail, and again when something did.
 */
struct report {
  uint32_t pid;   /* as the child itself sees it */
  uint32_t stage; /* enum msb_stage, or 0 */
  uint32_t code;
  uint32_t interpreter_missing; /* ENOENT, although the program is there */
};

/* A pipe's ends, by who keeps them. */
struct ends {
  int mine;
  int its;
};

static void write_report(int descriptor, const struct report* report) {
  /* Never short: less than PIPE_BUF into an empty pipe. The agent may be gone, and then nobody
   * wants it. */
  ssize_t ignored = write(descriptor, report, sizeof *report);
  (void)ignored;
}

/* mkdir -p of an absolute path, with modes as a container engine makes a missing working directory.
 */
static void create_directories(char* path) {
  for (char* slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    mkdir(path, 0755);
    *slash = '/';
  }
  mkdir(path, 0755);
}

static int enter_directory(const struct start_request* request) {
  if (chdir(request->directory) == 0) return 0;
  if (errno == ENOENT && (request->flags & MSB_START_CREATE_DIRECTORY) != 0) {
    create_directories(request->directory);
    if (chdir(request->directory) == 0) return 0;
  }
  return errno;
}

static int become_user(const struct start_request* request) {
  uid_t user = request->user;
  gid_t group = request->group;
  if (user == 0 && group == 0) return 0;
  /* Pipes belong to root with mode 0600; programs open /dev/stdout, which opens the pipe anew and
   * checks. */
  for (int descriptor = 0; descriptor < 3; descriptor++) {
    if (fchown(descriptor, user, group) != 0) return errno;
  }
  if (setgroups(0, NULL) != 0) return errno;
  if (setresgid(group, group, group) != 0) return errno;
  if (setresuid(user, user, user) != 0) return errno;
  return 0;
}

static const char* find_path(char* const* variables) {
  for (; *variables != NULL; variables++) {
    if (strncmp(*variables, "PATH=", 5) == 0) return *variables + 5;
  }
  return DEFAULT_PATH;
}

/* Executes one file. Returns why it could not. */
static int execute_file(const char* file, const struct start_request* request,
                        uint32_t* interpreter_missing) {
  execve(file, request->arguments, request->variables);
  int code = errno;
  if (code == ENOENT && access(file, F_OK) == 0) *interpreter_missing = 1;
  return code;
}

/*
 * Looks along PATH as execvp(3) does: what is missing or not executable is passed over, and EACCES
 * is what is left to say if nothing better is found. Unlike it, a script without an interpreter
 * line is not handed to a shell.
 */
static int execute(const struct start_request* request, uint32_t* interpreter_missing) {
  const char* name = request->arguments[0];
  if (*name == '\0') return ENOENT;
  if (strchr(name, '/') != NULL) return execute_file(name, request, interpreter_missing);

  bool forbidden = false;
  const char* directory = find_path(request->variables);
  while (true) {
    int length = (int)strcspn(directory, ":");
    char file[PATH_MAX];
    /* An empty part means the working directory. */
    const char* separator = length == 0 ? "" : "/";
    int needed = length >= PATH_MAX
                     ? PATH_MAX
                     : snprintf(file, sizeof file, "%.*s%s%s", length, directory, separator, name);
    if (needed < (int)sizeof file) {
      int code = execute_file(file, request, interpreter_missing);
      if (code == EACCES) {
        forbidden = true;
      } else if ((code != ENOENT && code != ENOTDIR) || *interpreter_missing != 0) {
        return code;
      }
    }
    if (directory[length] == '\0') break;
    directory += length + 1;
  }
  return forbidden ? EACCES : ENOENT;
}

/* The child. Only what execve(2) keeps is changed here, so the order matters only where a comment
 * says so. */
static _Noreturn void run_child(const struct start_request* request, const struct ends pipes[3],
                                int report_descriptor) {
  struct report report = {.pid = (uint32_t)getpid()};
  write_report(report_descriptor, &report);
  setsid();
  for (int i = 0; i < 3; i++) dup2(pipes[i].its, i);
  /*
   * Should what follows take long, the copies of the agent's descriptors must not keep connections
   * and pipes of other processes open.
   */
  if (report_descriptor != 3) report_descriptor = dup3(report_descriptor, 3, O_CLOEXEC);
  syscall(SYS_close_range, 4u, ~0u, 0u);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  struct rlimit files = {.rlim_cur = LIMIT_FILES_SOFT, .rlim_max = LIMIT_FILES_HARD};
  setrlimit(RLIMIT_NOFILE, &files);

  /* As root, because creating a directory may need it. */
  report.stage = MSB_STAGE_DIRECTORY;
  report.code = (uint32_t)enter_directory(request);
  if (report.code == 0) {
    report.stage = MSB_STAGE_USER;
    report.code = (uint32_t)become_user(request);
  }
  if (report.code == 0) {
    report.stage = MSB_STAGE_EXECUTE;
    report.code = (uint32_t)execute(request, &report.interpreter_missing);
  }
  write_report(report_descriptor, &report);
  _exit(127);
}

static void close_pipes(const struct ends pipes[4], int count) {
  for (int i = 0; i < count; i++) {
    close(pipes[i].mine);
    close(pipes[i].its);
  }
}

/* Standard input, output, error, and the report. The agent's ends do not block. */
static bool open_pipes(struct ends pipes[4]) {
  for (int i = 0; i < 4; i++) {
    int both[2];
    if (pipe2(both, O_CLOEXEC) != 0) {
      close_pipes(pipes, i);
      return false;
    }
    bool child_reads = i == 0;
    pipes[i].mine = both[child_reads ? 1 : 0];
    pipes[i].its = both[child_reads ? 0 : 1];
    fcntl(pipes[i].mine, F_SETFL, O_NONBLOCK);
  }
  return true;
}

bool spawn(const struct start_request* request, struct spawned* spawned, struct failure* failure) {
  struct ends pipes[4];
  if (!open_pipes(pipes)) {
    return fail(failure, MSB_STAGE_RESOURCES, errno, "cannot make pipes for the process");
  }
  pid_t pid = fork();
  if (pid == 0) run_child(request, pipes, pipes[3].its);
  if (pid < 0) {
    int code = errno;
    close_pipes(pipes, 4);
    return fail(failure, MSB_STAGE_RESOURCES, code, "cannot make a process");
  }
  for (int i = 0; i < 4; i++) close(pipes[i].its);
  spawned->pid = pid;
  spawned->input = pipes[0].mine;
  spawned->output = pipes[1].mine;
  spawned->error = pipes[2].mine;
  spawned->report = pipes[3].mine;
  return true;
}

static bool explain_execute(const struct report* report, const char* name,
                            struct failure* failure) {
  int code = (int)report->code;
  if (code == ENOENT && report->interpreter_missing != 0) {
    fail(failure, MSB_STAGE_EXECUTE, 0, "%.300s: the interpreter or loader it names is missing",
         name);
  } else if (code == ENOENT && strchr(name, '/') == NULL) {
    fail(failure, MSB_STAGE_EXECUTE, 0, "%.300s: not found along PATH", name);
  } else if (code == ENOEXEC) {
    fail(failure, MSB_STAGE_EXECUTE, 0,
         "%.300s: neither a program for this machine nor a script with an interpreter line", name);
  } else {
    fail(failure, MSB_STAGE_EXECUTE, code, "cannot execute %.300s", name);
  }
  failure->code = report->code;
  return false;
}

bool spawn_result(int descriptor, const struct start_request* request, uint32_t* pid,
                  struct failure* failure) {
  struct report report = {0};
  struct report next;
  bool reported = false;
  while (read(descriptor, &next, sizeof next) == (ssize_t)sizeof next) {
    report = next;
    reported = true;
  }
  if (!reported) {
    return fail(failure, MSB_STAGE_RESOURCES, 0, "the process was killed before it could start");
  }
  *pid = report.pid;
  switch (report.stage) {
    case 0:
      return true;
    case MSB_STAGE_DIRECTORY:
      return fail(failure, report.stage, (int)report.code,
                  "cannot enter the working directory %.300s", request->directory);
    case MSB_STAGE_USER:
      return fail(failure, report.stage, (int)report.code, "cannot become user %u, group %u",
                  request->user, request->group);
    default:
      return explain_execute(&report, request->arguments[0], failure);
  }
}
