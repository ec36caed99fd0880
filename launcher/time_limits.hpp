// SPDX-License-Identifier: Apache-2.0
// How long a sandbox may run, and for how long it may do nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/async_io.hpp"
#include "launcher/idle_clock.hpp"
#include "launcher/outcome.hpp"

namespace msb::launcher {

// Used on the loop's thread, which must be drained after close().
class TimeLimits {
 public:
  struct Options {
    std::uint32_t timeout_s = 0;  // 0: no limit
    std::uint32_t idle_timeout_s = 0;
  };
  // What the sandbox comes to when a limit is reached. Runs once.
  using Reached = std::function<void(Outcome)>;

  TimeLimits(AsyncIo& io, Options options, Reached reached);

  // From here on it counts.
  void start();
  // Something happened in the sandbox.
  void touch();
  // How many connections into it are open now.
  void hold(std::size_t connections);
  void close();

 private:
  void wait_for_idleness();
  void on_idle_timer();
  void reach(Outcome outcome);

  AsyncIo& io_;
  const Options options_;
  const Reached reached_;
  bool closed_ = false;
  std::size_t connections_ = 0;
  std::optional<IdleClock> idle_;  // once it counts
  Operation timeout_;
  Operation idle_timer_;
};

}  // namespace msb::launcher
