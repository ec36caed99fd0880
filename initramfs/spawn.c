/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "initramfs/limits.h"
#include "initramfs/process_limit.h"
#include "initramfs/terminal.h"
#include "initramfs/user.h"
#include "protocol/msb_exec.h"

/* Where programs are looked for when the variables have no PATH; container engines have the same.
 */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* The descriptors of a child, after standard input, output and error. */
#define CHANNEL_DESCRIPTOR 3
#define REPORT_DESCRIPTOR 4

/* What a child writes into its report: once when it is about to execute the program, so that one
 * that was killed before is told apart, and once when something failed. */
struct report {
  uint32_t pid;   /* as the child itself sees it */
  uint32_t stage; /* enum msb_stage, or 0 */
  uint32_t code;
  uint32_t detail; /* enum user_part; the index of a limit; for a program 1 when it is there, and
                      ENOENT is its interpreter's */
};

enum { INPUT, OUTPUT, ERROR, CHANNEL, REPORT, PIPES };

/* A pipe's ends, by who keeps them; -1 for none. */
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
  if (errno == ENOENT && (request->fixed.flags & MSB_START_CREATE_DIRECTORY) != 0) {
    create_directories(request->directory);
    if (chdir(request->directory) == 0) return 0;
  }
  return errno;
}

/* Of the process alone; what they are to be was checked when the request was parsed. */
static int set_limits(const struct start_request* request, uint32_t* index) {
  struct rlimit files = {.rlim_cur = LIMIT_FILES_SOFT, .rlim_max = LIMIT_FILES_HARD};
  setrlimit(RLIMIT_NOFILE, &files);
  for (*index = 0; *index < request->fixed.limits; ++*index) {
    const struct msb_limit* limit = &request->limits[*index];
    struct rlimit value = {.rlim_cur = limit->soft, .rlim_max = limit->hard};
    if (setrlimit((int)limit->resource, &value) != 0) return errno;
  }
  return 0;
}

/* Pipes belong to root with mode 0600; programs open /dev/stdout, which opens the pipe anew and
 * checks. A terminal keeps its group, which devpts gave it. */
static int own_streams(const struct start_request* request, const struct user* user) {
  bool terminal = (request->fixed.flags & MSB_START_TERMINAL) != 0;
  bool null = (request->fixed.flags & MSB_START_NO_STDIN) != 0;
  for (int descriptor = null ? 1 : 0; descriptor < 3; descriptor++) {
    if (fchown(descriptor, user->id, terminal ? (gid_t)-1 : user->group) != 0) return errno;
  }
  return 0;
}

static int become_user(const struct start_request* request, const struct user* user) {
  /* Without privilege, as the agent is where a developer tests it, it can only stay who it is. */
  if (geteuid() != 0 && *request->user == '\0' && *request->groups == NULL) return 0;
  int code = own_streams(request, user);
  if (code != 0) return code;
  if (setgroups(user->group_count, user->groups) != 0) return errno;
  if (setresgid(user->group, user->group, user->group) != 0) return errno;
  if (setresuid(user->id, user->id, user->id) != 0) return errno;
  return 0;
}

/* The variables have room for one more. */
static void set_home(const struct start_request* request, const struct user* user) {
  static char home[sizeof "HOME=" + PATH_MAX];
  char** variable = request->variables;
  for (; *variable != NULL; variable++) {
    if (strncmp(*variable, "HOME=", 5) == 0) return;
  }
  snprintf(home, sizeof home, "HOME=%s", user->home);
  *variable = home;
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

/* Standard streams, the channel and the report at their numbers, and nothing else. */
static int arrange_descriptors(const struct start_request* request, const struct ends pipes[PIPES],
                               int report) {
  bool null = (request->fixed.flags & MSB_START_NO_STDIN) != 0;
  int input = null ? open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY) : pipes[INPUT].its;
  if (input < 0 || dup2(input, 0) < 0 || dup2(pipes[OUTPUT].its, 1) < 0 ||
      dup2(pipes[ERROR].its, 2) < 0) {
    return errno;
  }
  if ((request->fixed.flags & MSB_START_TERMINAL) != 0 && ioctl(0, TIOCSCTTY, 0) != 0) return errno;
  if (pipes[CHANNEL].its < 0) {
    close(CHANNEL_DESCRIPTOR);
  } else if (dup2(pipes[CHANNEL].its, CHANNEL_DESCRIPTOR) < 0 ||
             fcntl(CHANNEL_DESCRIPTOR, F_SETFD, 0) != 0) { /* dup2(2) of a number to itself leaves
                                                              FD_CLOEXEC */
    return errno;
  }
  /*
   * Should what follows take long, the copies of the agent's descriptors must not keep connections
   * and pipes of other processes open.
   */
  if (report != REPORT_DESCRIPTOR) dup3(report, REPORT_DESCRIPTOR, O_CLOEXEC);
  syscall(SYS_close_range, REPORT_DESCRIPTOR + 1u, ~0u, 0u);
  return 0;
}

/*
 * From here on only what execve(2) keeps is changed. The order: a missing directory may need root
 * and the agent's umask to be made, and only root raises limits.
 */
static void become_program(const struct start_request* request, struct report* report) {
  static const struct user_files files = {.passwd = "/etc/passwd", .group = "/etc/group"};
  static struct user user;
  report->stage = MSB_STAGE_DIRECTORY;
  report->code = (uint32_t)enter_directory(request);
  if (report->code != 0) return;
  umask(request->fixed.umask);
  report->stage = MSB_STAGE_USER;
  report->code =
      (uint32_t)user_find(&files, request->user, request->groups, &user, &report->detail);
  if (report->code != 0) return;
  set_home(request, &user);
  report->stage = MSB_STAGE_REQUEST;
  report->code = (uint32_t)set_limits(request, &report->detail);
  if (report->code != 0) return;
  report->stage = MSB_STAGE_USER;
  report->detail = USER_PART_USER;
  report->code = (uint32_t)become_user(request, &user);
  if (report->code != 0) return;
  report->stage = 0;
  report->detail = 0;
  write_report(REPORT_DESCRIPTOR, report);
  report->stage = MSB_STAGE_EXECUTE;
  report->code = (uint32_t)execute(request, &report->detail);
}

static _Noreturn void run_child(const struct start_request* request,
                                const struct ends pipes[PIPES]) {
  struct report report = {.pid = (uint32_t)getpid()};
  setsid();
  report.stage = MSB_STAGE_RESOURCES;
  report.code = (uint32_t)process_limit_join();
  if (report.code == 0) {
    report.code = (uint32_t)arrange_descriptors(request, pipes, pipes[REPORT].its);
  }
  if (report.code != 0) {
    write_report(pipes[REPORT].its, &report);
    _exit(127);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  become_program(request, &report);
  write_report(REPORT_DESCRIPTOR, &report);
  _exit(127);
}

static void close_end(int end) {
  if (end >= 0) close(end);
}

static void close_pipes(const struct ends pipes[PIPES]) {
  for (int i = 0; i < PIPES; i++) {
    close_end(pipes[i].mine);
    close_end(pipes[i].its);
  }
}

static bool open_pipe(struct ends* pipe, bool child_reads) {
  int both[2];
  if (pipe2(both, O_CLOEXEC) != 0) return false;
  pipe->mine = both[child_reads ? 1 : 0];
  pipe->its = both[child_reads ? 0 : 1];
  fcntl(pipe->mine, F_SETFL, O_NONBLOCK);
  return true;
}

/* One for all three standard streams. The agent has the master twice, to wait for each direction by
 * itself: epoll(7) knows a descriptor once. */
static bool open_terminal(const struct msb_start* start, struct ends pipes[PIPES], int* slave) {
  if (!terminal_open(start->rows, start->columns, &pipes[INPUT].mine, slave)) return false;
  pipes[OUTPUT].mine = fcntl(pipes[INPUT].mine, F_DUPFD_CLOEXEC, 0);
  pipes[INPUT].its = fcntl(*slave, F_DUPFD_CLOEXEC, 0);
  pipes[OUTPUT].its = fcntl(*slave, F_DUPFD_CLOEXEC, 0);
  pipes[ERROR].its = fcntl(*slave, F_DUPFD_CLOEXEC, 0);
  return pipes[OUTPUT].mine >= 0 && pipes[INPUT].its >= 0 && pipes[OUTPUT].its >= 0 &&
         pipes[ERROR].its >= 0;
}

static bool open_channel(struct ends* channel) {
  int both[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) != 0) return false;
  channel->mine = both[0];
  channel->its = both[1];
  fcntl(channel->mine, F_SETFL, O_NONBLOCK);
  return true;
}

/* The agent's ends do not block. What was opened before a failure is in `pipes` and `slave`. */
static bool open_streams(const struct msb_start* start, struct ends pipes[PIPES], int* slave) {
  if ((start->flags & MSB_START_TERMINAL) != 0) {
    if (!open_terminal(start, pipes, slave)) return false;
  } else {
    bool input = (start->flags & MSB_START_NO_STDIN) == 0;
    if ((input && !open_pipe(&pipes[INPUT], true)) || !open_pipe(&pipes[OUTPUT], false) ||
        !open_pipe(&pipes[ERROR], false)) {
      return false;
    }
  }
  if ((start->flags & MSB_START_CHANNEL) != 0 && !open_channel(&pipes[CHANNEL])) return false;
  if (!open_pipe(&pipes[REPORT], false)) return false;
  /* Where the child leaves it alone while it arranges the others. */
  int report = fcntl(pipes[REPORT].its, F_DUPFD_CLOEXEC, REPORT_DESCRIPTOR);
  if (report < 0) return false;
  close(pipes[REPORT].its);
  pipes[REPORT].its = report;
  return true;
}

bool spawn(const struct start_request* request, struct spawned* spawned, struct failure* failure) {
  struct ends pipes[PIPES] = {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
  int slave = -1;
  const char* step = "make the streams of the process";
  pid_t pid = -1;
  if (open_streams(&request->fixed, pipes, &slave)) {
    step = "make a process";
    pid = fork();
    if (pid == 0) run_child(request, pipes);
  }
  if (pid < 0) {
    int code = errno;
    close_pipes(pipes);
    close_end(slave);
    return fail(failure, MSB_STAGE_RESOURCES, code, "cannot %s", step);
  }
  for (int i = 0; i < PIPES; i++) close_end(pipes[i].its);
  *spawned = (struct spawned){.pid = pid,
                              .input = pipes[INPUT].mine,
                              .output = pipes[OUTPUT].mine,
                              .error = pipes[ERROR].mine,
                              .channel = pipes[CHANNEL].mine,
                              .slave = slave,
                              .report = pipes[REPORT].mine};
  return true;
}

static bool explain_execute(const struct report* report, const char* name,
                            struct failure* failure) {
  int code = (int)report->code;
  if (code == ENOENT && report->detail != 0) {
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

static bool explain_user(const struct report* report, const struct start_request* request,
                         struct failure* failure) {
  int code = (int)report->code;
  const char* name = request->user;
  const char* kind = "user";
  if (report->detail == USER_PART_GROUP) {
    const char* colon = strchr(name, ':');
    name = colon == NULL ? name : colon + 1;
    kind = "group";
  }
  if (report->detail >= USER_PART_GROUPS &&
      report->detail - USER_PART_GROUPS < request->fixed.groups) {
    name = request->groups[report->detail - USER_PART_GROUPS];
    kind = "group";
  }
  if (code == ENOENT) {
    fail(failure, MSB_STAGE_USER, 0, "there is no %s \"%.200s\" in the sandbox", kind, name);
    failure->code = report->code;
    return false;
  }
  return fail(failure, MSB_STAGE_USER, code, "cannot become %s \"%.200s\"", kind, name);
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
  int code = (int)report.code;
  switch (report.stage) {
    case 0:
      return true;
    case MSB_STAGE_REQUEST:
      return fail(failure, report.stage, code, "cannot set limit %u of the process", report.detail);
    case MSB_STAGE_RESOURCES:
      return fail(failure, report.stage, code, "cannot arrange the streams of the process");
    case MSB_STAGE_DIRECTORY:
      return fail(failure, report.stage, code, "cannot enter the working directory %.300s",
                  request->directory);
    case MSB_STAGE_USER:
      return explain_user(&report, request, failure);
    default:
      return explain_execute(&report, request->arguments[0], failure);
  }
}
