// SPDX-License-Identifier: Apache-2.0
// Whether a /dev/kvm that opens can really run Linux: found out by running a tiny guest that
// executes what Linux needs. On a host without hardware virtualization KVM's ioctls may all succeed
// and guest ring 0 may still be an emulation that stops at instructions of every kernel.
#pragma once

#include <signal.h>
#include <time.h>

#include <chrono>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "vmm/kvm.hpp"

namespace msb::vmm {

struct ProbeResult {
  bool usable;         // Linux guests run
  std::string reason;  // one sentence for the user; when unusable, which features fail and how
};

inline constexpr std::chrono::milliseconds kProbeLimit{2000};

// `kvm`: an open /dev/kvm, borrowed. `limit`: the guest runs no longer than this in all; a guest
// that is not through by then is a finding, not an error. Uses SIGALRM of the calling thread
// meanwhile (RunLimit). Fails when an ioctl or the timer does, which says nothing about guests.
Result<ProbeResult> probe_kvm(int kvm, std::chrono::milliseconds limit = kProbeLimit);

// Ends Vcpu::run() of the thread that made it when its time is up: run() then fails with EINTR, now
// and from then on, until the RunLimit goes. SIGALRM's handler and mask are its own meanwhile, so a
// process has one at a time. Must not outlive the vCPU and goes on the thread it was made on.
class RunLimit {
 public:
  // Fails when the host refuses the timer.
  static Result<std::unique_ptr<RunLimit>> start(const Vcpu& vcpu, std::chrono::nanoseconds limit);
  ~RunLimit();
  RunLimit(const RunLimit&) = delete;
  RunLimit& operator=(const RunLimit&) = delete;

  [[nodiscard]] bool expired() const { return state_.immediate_exit != 0; }

 private:
  explicit RunLimit(kvm_run& state);
  // Shared with KVM and written by the signal handler.
  volatile kvm_run& state_;
  struct sigaction old_action_{};
  sigset_t old_mask_{};
  timer_t timer_{};
  bool has_timer_ = false;
};

}  // namespace msb::vmm
