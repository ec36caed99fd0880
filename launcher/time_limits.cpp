// SPDX-License-Identifier: Apache-2.0
#include "launcher/time_limits.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

namespace msb::launcher {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kSecond = 1'000'000'000;  // nanoseconds

}  // namespace

TimeLimits::TimeLimits(AsyncIo& io, Options options, Reached reached)
    : io_(io),
      options_(options),
      reached_(std::move(reached)),
      timeout_([this](std::int32_t result) {
        if (result == -ETIME) {
          reach({kExitTimeout,
                 fmt::format("the sandbox was stopped because its {} s were over (--timeout)",
                             options_.timeout_s),
                 Cause::kTimeout});
        }
      }),
      idle_timer_([this](std::int32_t result) {
        if (result == -ETIME) {
          on_idle_timer();
        }
      }) {}

void TimeLimits::start() {
  if (options_.timeout_s != 0) {
    io_.timeout(options_.timeout_s * kSecond, timeout_);
  }
  if (options_.idle_timeout_s != 0) {
    idle_.emplace(std::chrono::seconds(options_.idle_timeout_s), Clock::now());
    idle_->hold(connections_, Clock::now());
    wait_for_idleness();
  }
}

void TimeLimits::touch() {
  if (idle_) {
    idle_->touch(Clock::now());
  }
}

void TimeLimits::hold(std::size_t connections) {
  connections_ = connections;
  if (idle_) {
    idle_->hold(connections, Clock::now());
    wait_for_idleness();
  }
}

// One timer, which is not set anew with everything that happens: when it ends it finds out.
void TimeLimits::wait_for_idleness() {
  const auto deadline = idle_->deadline();
  if (!closed_ && deadline && !idle_timer_.pending()) {
    const std::chrono::nanoseconds left = *deadline - Clock::now();
    // Not too early, or it would have to be looked at again.
    io_.timeout(static_cast<std::uint64_t>(std::max<std::int64_t>(left.count(), 1'000'000)),
                idle_timer_);
  }
}

void TimeLimits::on_idle_timer() {
  if (idle_->is_over(Clock::now())) {
    reach({kExitTimeout,
           fmt::format("the sandbox was stopped because nothing happened in it for {} s "
                       "(--idle-timeout)",
                       options_.idle_timeout_s),
           Cause::kIdle});
  } else {
    wait_for_idleness();
  }
}

void TimeLimits::reach(Outcome outcome) {
  if (!std::exchange(closed_, true)) {
    reached_(std::move(outcome));
  }
}

void TimeLimits::close() {
  closed_ = true;
  io_.cancel(timeout_);
  io_.cancel(idle_timer_);
}

}  // namespace msb::launcher
