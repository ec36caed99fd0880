// SPDX-License-Identifier: Apache-2.0
#include "vmm/run_limit.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

namespace msb::vmm {

namespace {

using namespace std::chrono_literals;

// SIGALRM's handler. The timer's value points at kvm_run.immediate_exit, so a signal that comes
// just before KVM_RUN ends it as well (Documentation/virt/kvm/api.rst, 5, "immediate_exit").
void end_run(int, siginfo_t* info, void*) {
  if (info->si_code == SI_TIMER) {
    *static_cast<volatile std::uint8_t*>(info->si_value.sival_ptr) = 1;
  }
}

}  // namespace

RunLimit::RunLimit(kvm_run& state) : state_(state) {
  struct sigaction action{};
  action.sa_sigaction = end_run;
  action.sa_flags = SA_SIGINFO;  // without SA_RESTART: KVM_RUN is to return
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGALRM, &action, &old_action_);
  sigset_t alarm;
  ::sigemptyset(&alarm);
  ::sigaddset(&alarm, SIGALRM);
  ::pthread_sigmask(SIG_UNBLOCK, &alarm, &old_mask_);
}

RunLimit::~RunLimit() {
  // A signal that is pending is delivered at the latest when timer_delete() returns, to our
  // handler.
  if (has_timer_) {
    ::timer_delete(timer_);
  }
  ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
  ::sigaction(SIGALRM, &old_action_, nullptr);
  state_.immediate_exit = 0;
}

Result<std::unique_ptr<RunLimit>> RunLimit::start(const Vcpu& vcpu,
                                                  std::chrono::nanoseconds limit) {
  std::unique_ptr<RunLimit> self(new RunLimit(vcpu.state()));
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGALRM;
  event.sigev_value.sival_ptr = &vcpu.state().immediate_exit;
  event._sigev_un._tid = ::gettid();
  if (::timer_create(CLOCK_MONOTONIC, &event, &self->timer_) != 0) {
    return fail_errno(errno, "cannot make a timer that bounds the run of a vCPU");
  }
  self->has_timer_ = true;
  if (limit <= 0ns) {
    self->state_.immediate_exit = 1;  // no time at all, rather than as long as the signal takes
  }
  // Zero would disarm the timer.
  const auto time = std::max(limit, 1ns);
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  itimerspec when{};
  when.it_value = {seconds.count(), (time - seconds).count()};
  // Again and again: a KVM that does not know immediate_exit misses a signal that comes before
  // KVM_RUN.
  when.it_interval = {0, 10'000'000};
  if (::timer_settime(self->timer_, 0, &when, nullptr) != 0) {
    return fail_errno(errno, "cannot start the timer that bounds the run of a vCPU");
  }
  return self;
}

}  // namespace msb::vmm
