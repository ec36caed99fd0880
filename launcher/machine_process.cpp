// SPDX-License-Identifier: Apache-2.0
#include "launcher/machine_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

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
  auto child = ChildProcess::start(
      {.program = path,
       .arguments = {"msb-machine"},
       .environment = false,
       .descriptors = {{pair->theirs.get(), kControlDescriptor}, {kvm, kKvmDescriptor}}});
  if (!child) {
    return std::unexpected(child.error());
  }
  return MachineProcess(std::move(pair->ours), std::move(*child));
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
  return child_.end();
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
