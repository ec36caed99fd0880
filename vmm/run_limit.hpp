// SPDX-License-Identifier: Apache-2.0
// A bound on how long a vCPU runs.
#pragma once

#include <signal.h>
#include <time.h>

#include <chrono>
#include <memory>

#include "base/result.hpp"
#include "vmm/kvm.hpp"

namespace msb::vmm {

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
