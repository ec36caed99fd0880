// SPDX-License-Identifier: Apache-2.0
#include "launcher/machine_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "launcher/paths.hpp"

namespace msb::launcher {

namespace {

// How long the probe guest may take before it counts as hanging; it needs milliseconds.
constexpr int kProbeTimeoutMs = 15'000;

}  // namespace

Result<Fd> open_kvm() {
  Fd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (kvm) {
    return kvm;
  }
  switch (errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return fail(
          "there is no usable /dev/kvm: switch on virtualization in the firmware and load the kvm "
          "module, or run "
          "this in scripts/emulated-host");
    case EACCES:
    case EPERM:
      return fail(
          "no permission to open /dev/kvm: add your user to the group that owns it (usually `sudo "
          "usermod -aG kvm "
          "$USER`, then log in again)");
    default:
      return fail_errno(errno, "cannot open /dev/kvm");
  }
}

Result<MachineProcess> MachineProcess::start(int kvm) {
  const auto program = program_directory();
  if (!program) {
    return std::unexpected(program.error());
  }
  const std::string path = *program + "/msb-machine";
  auto pair = make_control_pair();
  if (!pair) {
    return std::unexpected(pair.error());
  }
  // Both descriptors are moved out of the way first, so that neither lands on the other's place.
  const Fd control(::fcntl(pair->theirs.get(), F_DUPFD_CLOEXEC, kKvmDescriptor + 1));
  const Fd device(::fcntl(kvm, F_DUPFD_CLOEXEC, kKvmDescriptor + 1));
  if (!control || !device) {
    return fail_errno(errno, "cannot duplicate a descriptor for msb-machine");
  }
  pair->theirs.reset();

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, control.get(), kControlDescriptor);
  ::posix_spawn_file_actions_adddup2(&actions, device.get(), kKvmDescriptor);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, kKvmDescriptor + 1);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  // A session of its own: a Ctrl-C in our terminal is for the command in the guest, not for the
  // machine.
  ::posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = -1;
  std::string name = "msb-machine";
  char* arguments[] = {name.data(), nullptr};
  char* environment[] = {nullptr};
  const int status =
      ::posix_spawn(&pid, path.c_str(), &actions, &attributes, arguments, environment);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (status != 0) {
    return fail_errno(status, "cannot start {}", path);
  }
  // Not waited for yet, so the number is still its own.
  Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const int code = errno;
  MachineProcess machine(std::move(pair->ours), std::move(process), pid);
  if (machine.process() < 0) {
    return fail_errno(code, "cannot watch msb-machine");
  }
  return machine;
}

MachineProcess::MachineProcess(MachineProcess&& other) noexcept
    : control_(std::move(other.control_)),
      process_(std::move(other.process_)),
      pid_(std::exchange(other.pid_, -1)) {}

MachineProcess::~MachineProcess() {
  end();
}

Result<void> MachineProcess::connect(Fd socket, std::uint32_t guest_port) {
  if (!control_has_space(control_.get())) {
    return fail("the machine does not read what it is sent");
  }
  const int descriptor = socket.get();
  return send_control(control_.get(), ControlKind::kVsockConnect, guest_port, {}, {&descriptor, 1});
}

Result<Fd> MachineProcess::connect(std::uint32_t guest_port) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail_errno(errno, "cannot create a socket pair");
  }
  Fd ours(ends[0]);
  if (auto sent = connect(Fd(ends[1]), guest_port); !sent) {
    return std::unexpected(sent.error());
  }
  return ours;
}

std::string MachineProcess::end() {
  control_.reset();
  if (pid_ < 0) {
    return "";
  }
  // It is our child and not waited for, so the number is still its own. One that has ended already
  // keeps its status.
  ::kill(pid_, SIGKILL);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                             : fmt::format("exit status {}", WEXITSTATUS(status));
}

Result<ControlMessage> probe_machine(int kvm) {
  auto machine = MachineProcess::start(kvm);
  if (!machine) {
    return std::unexpected(machine.error());
  }
  if (auto sent = send_control(machine->control(), ControlKind::kProbe, 0); !sent) {
    return std::unexpected(sent.error());
  }
  pollfd entry{machine->control(), POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&entry, 1, kProbeTimeoutMs)) < 0 && errno == EINTR) {
  }
  if (ready == 0) {
    return fail("the probe guest did not answer within {} s", kProbeTimeoutMs / 1000);
  }
  auto answer = receive_control(machine->control());
  if (!answer) {
    return fail("msb-machine ended during the probe with {}", machine->end());
  }
  if (answer->kind != ControlKind::kProbeResult) {
    return fail("{}", answer->text);
  }
  return answer;
}

}  // namespace msb::launcher
