// SPDX-License-Identifier: Apache-2.0
//
// PID 1 of the emulated host: loads the kernel modules, makes the host's root its own, runs one
// command and carries its streams. `scripts/emulated-host` compiles it, starts it and is the other
// end of everything below.
//
// Four virtio-serial ports (/dev/vport0p<n>):
//   1  control. The guest sends lines: "started" to ask for the request, "ready" when the command
//      starts, "exit STATUS OUT-BYTES ERR-BYTES"; or at any time "cannot WHY".
//      The host sends one request: a u32 length, then that many bytes of NUL-terminated strings:
//      time (ns), shared directory, the command's directory, "1" when /root must be hidden, "1"
//      when there is a scratch disk, number of environment entries, those entries, the arguments.
//      Afterwards single letters: 'o' or 'e' when nobody reads standard output or standard error
//      any more; 'p' for nothing but the interrupt.
//   2  standard input, in chunks: u32 length, bytes; length 0 is the end. Chunks, because a port
//      that the host closes can lose what was under way.
//   3, 4  standard output and standard error, as they are. The host knows from "exit" how many
//      bytes must have arrived, and ends the machine only then: a power-off would drop the rest.
//
// Everything is one loop in one process, so that "kill all but PID 1" leaves exactly the relay.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PORT_CONTROL = 1, PORT_STDIN = 2, PORT_STDOUT = 3, PORT_STDERR = 4 };

// How long processes that were killed, and a file system that is busy, may take at the end.
#define END_GRACE_MS 5000

static int control = -1;

_Noreturn static void power_off(void) {
  sync();
  reboot(RB_AUTOBOOT);  // QEMU runs with -no-reboot: this ends it
  for (;;) pause();
}

// Ends the machine with the reason; the host reports it as the machine's failure, not the
// command's.
_Noreturn static void cannot(const char* format, ...) {
  int error = errno;
  char why[600];
  va_list arguments;
  va_start(arguments, format);
  int used = vsnprintf(why, sizeof why, format, arguments);
  va_end(arguments);
  if (used < 0 || used > 500) used = 500;
  snprintf(why + used, sizeof why - used, ": %s", strerror(error));
  dprintf(2, "emulated host: cannot %s\n", why);
  if (control >= 0) {
    dprintf(control, "cannot %s\n", why);
    struct pollfd gone = {.fd = control};
    poll(&gone, 1, END_GRACE_MS);  // until the host has read it and hung up
  }
  power_off();
}

static void mount_at(const char* source, const char* target, const char* type, unsigned long flags,
                     const char* options) {
  mkdir(target, 0755);
  if (mount(source, target, type, flags, options) < 0) cannot("mount %s at %s", type, target);
}

static void make_directories(const char* path) {
  char partial[PATH_MAX];
  snprintf(partial, sizeof partial, "%s", path);
  for (char* slash = partial + 1; (slash = strchr(slash, '/')); slash++) {
    *slash = 0;
    mkdir(partial, 0755);
    *slash = '/';
  }
  mkdir(partial, 0755);
}

// KVM keeps the TSC's frequency as it is when its module is loaded. A second later Linux knows
// better, and where QEMU's timers were late at boot the two differ by more than KVM's tolerance of
// 250 ppm. KVM then takes a guest's TSC for one to be scaled, which this processor cannot do,
// multiplies by 0 (set_tsc_khz() in arch/x86/kvm/x86.c), and no timer of a guest ever ends. So it
// tolerates more.
#define KVM_PARAMETERS "tsc_tolerance_ppm=500000"

// /modules/order lists the files in the order in which they have to be loaded.
static void load_modules(void) {
  FILE* order = fopen("/modules/order", "re");
  if (!order) cannot("open /modules/order");
  char name[NAME_MAX];
  while (fgets(name, sizeof name, order)) {
    name[strcspn(name, "\n")] = 0;
    char path[NAME_MAX + 16];
    snprintf(path, sizeof path, "/modules/%s", name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    const char* parameters = strncmp(name, "kvm.", 4) == 0 ? KVM_PARAMETERS : "";
    if (file < 0 || (syscall(SYS_finit_module, file, parameters, 0) < 0 && errno != EEXIST))
      cannot("load the kernel module %s", name);
    close(file);
  }
  fclose(order);
}

// A port appears some time after its device.
static int open_port(int number) {
  char path[32];
  snprintf(path, sizeof path, "/dev/vport0p%d", number);
  for (int attempt = 0; attempt < 5000; attempt++) {
    int port = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (port >= 0) return port;
    if (errno != ENOENT) break;
    usleep(1000);
  }
  cannot("open %s", path);
}

static void read_exactly(int file, void* buffer, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t count = read(file, (char*)buffer + done, size - done);
    if (count > 0) {
      done += count;
    } else if (count < 0 && errno == EAGAIN) {
      struct pollfd readable = {.fd = file, .events = POLLIN};
      poll(&readable, 1, -1);
    } else {
      if (count == 0) errno = EPIPE;
      cannot("read the request");
    }
  }
}

struct request {
  long long time_ns;
  char* work;
  char* directory;
  bool hide_home;
  bool scratch;
  char** environment;
  char** arguments;
};

static struct request read_request(void) {
  uint32_t size;
  read_exactly(control, &size, sizeof size);
  char* text = malloc(size + 1);
  if (!text) cannot("keep a request of %u bytes", size);
  read_exactly(control, text, size);
  text[size] = 0;

  size_t count = 0;
  for (char* at = text; at < text + size; at += strlen(at) + 1) count++;
  char** strings = (char**)calloc(count + 2, sizeof *strings);
  if (!strings) cannot("keep a request of %zu strings", count);
  size_t index = 0;
  for (char* at = text; at < text + size; at += strlen(at) + 1) strings[index++] = at;

  enum { VARIABLES = 5, FIXED = 6 };
  size_t variables = count > FIXED ? strtoul(strings[VARIABLES], NULL, 10) : 0;
  if (count <= FIXED || variables > count - FIXED - 1) {
    errno = EINVAL;
    cannot("understand the request");
  }
  struct request request = {.time_ns = atoll(strings[0]),
                            .work = strings[1],
                            .directory = strings[2],
                            .hide_home = strcmp(strings[3], "1") == 0,
                            .scratch = strcmp(strings[4], "1") == 0};
  // The environment gets its terminating NULL by moving the arguments one place up.
  char** arguments = &strings[FIXED + variables];
  memmove((void*)(arguments + 1), (const void*)arguments,
          (count - FIXED - variables) * sizeof *strings);
  arguments[0] = NULL;
  request.environment = &strings[FIXED];
  request.arguments = arguments + 1;
  return request;
}

#define NINE_P "trans=virtio,version=9p2000.L,msize=512000"

// The host's root, read-only below a tmpfs, becomes the root directory. It is moved, not chrooted
// into: user namespaces and pivot_root are refused to a process in a chroot.
static void enter_host_root(void) {
  mount_at("root", "/lower", "9p", MS_RDONLY, NINE_P ",cache=loose");
  mount_at("tmpfs", "/upper", "tmpfs", 0, "mode=755");
  mkdir("/upper/data", 0755);
  mkdir("/upper/work", 0755);
  mount_at("overlay", "/new", "overlay", 0,
           "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work");
  if (mount("/dev", "/new/dev", NULL, MS_MOVE, NULL) < 0) cannot("move /dev");
  if (chdir("/new") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
      chdir("/") < 0)
    cannot("enter the host's root");
}

static void mount_system(bool hide_home) {
  mount_at("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
  mount_at("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
  mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
  mount_at("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666");
  mount_at("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  mount_at("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
  mount_at("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
  mount_at("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  mkdir("/run/lock", 01777);
  if (hide_home) mount_at("tmpfs", "/root", "tmpfs", MS_NOSUID | MS_NODEV, "mode=700");

  // What udev would do.
  symlink("/proc/self/fd", "/dev/fd");
  symlink("/proc/self/fd/0", "/dev/stdin");
  symlink("/proc/self/fd/1", "/dev/stdout");
  symlink("/proc/self/fd/2", "/dev/stderr");
  static const char* const for_everyone[] = {"/dev/kvm", "/dev/vhost-vsock", "/dev/vsock",
                                             "/dev/fuse", "/dev/net/tun"};
  for (size_t index = 0; index < sizeof for_everyone / sizeof *for_everyone; index++)
    chmod(for_everyone[index], 0666);
}

// The only disk. Set-user-ID programs and devices work on it, for it may hold root file systems.
// "discard": what is deleted gives its space back to the host.
static void mount_scratch(void) {
  mount_at("/dev/vda", "/scratch", "ext4", MS_NOATIME, "discard");
  rmdir("/scratch/lost+found");  // there will be no fsck
  chmod("/scratch", 01777);
}

static void raise_limits_and_network(void) {
  struct rlimit files = {.rlim_cur = 1024, .rlim_max = 524288};  // as systemd sets them
  setrlimit(RLIMIT_NOFILE, &files);
  sethostname("emulated-host", strlen("emulated-host"));
  int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  if (any < 0 || ioctl(any, SIOCSIFFLAGS, &loopback) < 0) cannot("bring the loopback device up");
  close(any);
}

// One direction of bytes. At most one of a read and a write is outstanding, so what is buffered is
// bounded and a slow reader slows the writer down.
struct relay {
  int from, to;
  size_t begin, end;
  unsigned long long passed;
  char buffer[65536];
};

static void close_file(int* file) {
  if (*file >= 0) close(*file);
  *file = -1;
}

static bool would_block(void) {
  return errno == EAGAIN || errno == EINTR;
}

// Writes what is buffered. When the reader is gone the source is closed too, so that the writer
// gets the SIGPIPE that it would get on the host.
static void relay_write(struct relay* relay) {
  ssize_t count = write(relay->to, relay->buffer + relay->begin, relay->end - relay->begin);
  if (count > 0) {
    relay->begin += count;
    relay->passed += count;
  } else if (count < 0 && !would_block()) {
    close_file(&relay->to);
  }
}

// From the command's standard output or error to its port.
static void relay_output(struct relay* relay) {
  if (relay->begin == relay->end && relay->from >= 0) {
    ssize_t count = read(relay->from, relay->buffer, sizeof relay->buffer);
    relay->begin = relay->end = 0;
    if (count > 0)
      relay->end = count;
    else if (count == 0 || !would_block())
      close_file(&relay->from);
  }
  if (relay->begin < relay->end) relay_write(relay);
}

struct input {
  struct relay relay;
  uint32_t left;  // of the present chunk
  size_t header_size;
  char header[sizeof(uint32_t)];
  bool ended;
};

// From the standard input port to the command.
static void relay_input(struct input* input) {
  struct relay* relay = &input->relay;
  if (relay->begin < relay->end) {
    relay_write(relay);
    return;
  }
  if (input->left == 0) {
    ssize_t count = read(relay->from, input->header + input->header_size,
                         sizeof input->header - input->header_size);
    if (count <= 0) return;
    input->header_size += count;
    if (input->header_size < sizeof input->header) return;
    memcpy(&input->left, input->header, sizeof input->left);
    input->header_size = 0;
    if (input->left == 0) {
      input->ended = true;
      close_file(&relay->to);
    }
    return;
  }
  size_t wanted = input->left < sizeof relay->buffer ? input->left : sizeof relay->buffer;
  ssize_t count = read(relay->from, relay->buffer, wanted);
  if (count <= 0) return;
  relay->begin = 0;
  relay->end = count;
  input->left -= count;
  relay_write(relay);
}

static pid_t start_command(const struct request* request, struct input* input,
                           struct relay outputs[2]) {
  int in[2], out[2], err[2];
  if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
    cannot("make pipes");
  pid_t command = fork();
  if (command < 0) cannot("fork");
  if (command == 0) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    if (dup2(in[0], 0) < 0 || dup2(out[1], 1) < 0 || dup2(err[1], 2) < 0) _exit(126);
    if (chdir(request->directory) < 0) {
      dprintf(2, "emulated-host: cannot enter %s: %s\n", request->directory, strerror(errno));
      _exit(126);
    }
    environ = request->environment;
    execvp(request->arguments[0], request->arguments);
    int error = errno;
    dprintf(2, "emulated-host: cannot run %s: %s\n", request->arguments[0], strerror(error));
    _exit(error == ENOENT ? 127 : 126);
  }
  close(in[0]);
  close(out[1]);
  close(err[1]);
  // Non-blocking, ours alone: the command's ends are other open files.
  fcntl(in[1], F_SETFL, O_NONBLOCK);
  fcntl(out[0], F_SETFL, O_NONBLOCK);
  fcntl(err[0], F_SETFL, O_NONBLOCK);
  input->relay.to = in[1];
  outputs[0].from = out[0];
  outputs[1].from = err[0];
  return command;
}

// Reaps what has ended; true when the command was among it.
static bool reap(pid_t command, int* status) {
  bool found = false;
  int ended_status;
  pid_t ended;
  while ((ended = waitpid(-1, &ended_status, WNOHANG)) > 0) {
    if (ended != command) continue;
    found = true;
    *status = WIFSIGNALED(ended_status) ? 128 + WTERMSIG(ended_status) : WEXITSTATUS(ended_status);
  }
  return found;
}

static long long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

// Carries the streams until the command has ended and all it wrote is on its way.
static int carry(pid_t command, struct input* input, struct relay outputs[2], int child_ended) {
  enum { CONTROL, INPUT, OUT, ERR, CHILD, COUNT };
  int status = 0;
  bool running = true;
  long long killed_at = 0;
  for (;;) {
    struct pollfd polled[COUNT] = {
        [CONTROL] = {.fd = control, .events = POLLIN},
        [INPUT] = {.fd = -1},
        [OUT] = {.fd = -1},
        [ERR] = {.fd = -1},
        [CHILD] = {.fd = child_ended, .events = POLLIN},
    };
    struct relay* in = &input->relay;
    if (running && !input->ended && in->to >= 0) {
      if (in->begin < in->end)
        polled[INPUT] = (struct pollfd){.fd = in->to, .events = POLLOUT};
      else
        polled[INPUT] = (struct pollfd){.fd = in->from, .events = POLLIN};
    }
    bool more = running;
    for (int index = 0; index < 2; index++) {
      struct relay* relay = &outputs[index];
      if (relay->to < 0) close_file(&relay->from);
      if (relay->to >= 0 && relay->begin < relay->end)
        polled[OUT + index] = (struct pollfd){.fd = relay->to, .events = POLLOUT};
      else if (relay->from >= 0)
        polled[OUT + index] = (struct pollfd){.fd = relay->from, .events = POLLIN};
      if (polled[OUT + index].fd >= 0) more = true;
    }
    if (!more) return status;

    poll(polled, COUNT, running ? -1 : 100);

    // Killed processes close their ends of the pipes; one stuck in the kernel must not hold us up.
    if (!running && now_ms() - killed_at > END_GRACE_MS)
      for (int index = 0; index < 2; index++)
        if (outputs[index].begin == outputs[index].end && !(polled[OUT + index].revents & POLLIN))
          close_file(&outputs[index].from);

    if (polled[CONTROL].revents & POLLIN) {
      char letters[16];
      ssize_t count = read(control, letters, sizeof letters);
      for (ssize_t index = 0; index < count; index++) {
        if (letters[index] == 'p') continue;
        struct relay* relay = letters[index] == 'o' ? &outputs[0] : &outputs[1];
        close_file(&relay->to);
        relay->begin = relay->end = 0;
      }
    }
    if (polled[CONTROL].revents & POLLHUP) power_off();  // the host's side was killed
    if (polled[INPUT].revents) relay_input(input);
    if (polled[OUT].revents) relay_output(&outputs[0]);
    if (polled[ERR].revents) relay_output(&outputs[1]);
    if (polled[CHILD].revents) {
      struct signalfd_siginfo ignored;
      if (read(child_ended, &ignored, sizeof ignored) < 0) continue;
      if (reap(command, &status)) {
        running = false;
        close_file(&in->to);
        // The machine ends with its command; what it left running ends here.
        kill(-1, SIGKILL);
        killed_at = now_ms();
      }
    }
  }
}

int main(void) {
  mount_at("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
  int console = open("/dev/console", O_RDWR);
  for (int file = 0; console >= 0 && file < 3; file++) dup2(console, file);
  if (console > 2) close(console);

  load_modules();
  control = open_port(PORT_CONTROL);
  enter_host_root();
  dprintf(control, "started\n");
  struct request request = read_request();
  struct timespec time = {.tv_sec = request.time_ns / 1000000000,
                          .tv_nsec = request.time_ns % 1000000000};
  clock_settime(CLOCK_REALTIME, &time);
  mount_system(request.hide_home);
  if (request.scratch) mount_scratch();
  raise_limits_and_network();
  // cache=mmap: reads, writes and attributes go to the host as they happen, and shared writable
  // mappings (linkers, databases) work, which cache=none refuses.
  make_directories(request.work);
  mount_at("work", request.work, "9p", 0, NINE_P ",cache=mmap");

  static struct input input;
  static struct relay outputs[2];
  input.relay.from = open_port(PORT_STDIN);
  outputs[0].to = open_port(PORT_STDOUT);
  outputs[1].to = open_port(PORT_STDERR);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, NULL);
  signal(SIGPIPE, SIG_IGN);
  int child_ended = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (child_ended < 0) cannot("watch for ended processes");

  dprintf(control, "ready\n");
  pid_t command = start_command(&request, &input, outputs);
  int status = carry(command, &input, outputs, child_ended);

  // Mapped pages are written back here; everything else already is.
  for (long long start = now_ms(); umount(request.work) < 0; usleep(10000)) {
    if (now_ms() - start < END_GRACE_MS) continue;
    sync();
    break;
  }
  dprintf(control, "exit %d %llu %llu\n", status, outputs[0].passed, outputs[1].passed);
  // The host ends the machine when it has every byte. If it is gone, so are we.
  struct pollfd gone = {.fd = control};
  poll(&gone, 1, -1);
  power_off();
}
