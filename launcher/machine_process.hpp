// SPDX-License-Identifier: Apache-2.0
// A running msb-machine, as its launcher holds it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/control.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "launcher/child_process.hpp"

namespace msb::launcher {

// Opens /dev/kvm. Fails with what to do when it is missing or not permitted.
Result<Fd> open_kvm();

// Owns the process: it does not outlive this object, nor this process.
class MachineProcess {
 public:
  // Starts msb-machine, which lies beside this program, in a session of its own, with the control
  // socket, `kvm`, standard error, and no other descriptor.
  static Result<MachineProcess> start(int kvm);
  // Its control socket (control.hpp), non-blocking.
  [[nodiscard]] int control() const { return control_.get(); }
  // A pidfd: readable once the process has ended, however it ended. Its sockets may be closed later
  // than that, when the kernel has taken its io_uring apart.
  [[nodiscard]] int process() const { return child_.process(); }

  // Has it connect a stream socket in blocking mode to `guest_port`: "OK <number>\n" is written to
  // it when the guest accepts, and it is closed when the guest does not. Fails when the process is
  // gone, or does not read what it was sent before.
  Result<void> connect(Fd socket, std::uint32_t guest_port);
  // The same with a new pair, of which this is our end.
  Result<Fd> connect(std::uint32_t guest_port);

  // Ends the process if it still runs, and says how it ended: "exit status 1", "signal 9".
  std::string end();

 private:
  MachineProcess(Fd control, ChildProcess child)
      : control_(std::move(control)), child_(std::move(child)) {}
  Fd control_;
  ChildProcess child_;
};

// Asks a fresh msb-machine to run its probe guest. The value of the answer is 1 when Linux guests
// run; its text says what was found.
Result<ControlMessage> probe_machine(int kvm);

}  // namespace msb::launcher
