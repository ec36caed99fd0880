// SPDX-License-Identifier: Apache-2.0
// The launcher's own signals on the event loop.
#pragma once

#include <sys/signalfd.h>

#include <csignal>
#include <functional>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::launcher {

// So many SIGINTs while a command runs end the waiting for it: it may not react to any.
inline constexpr int kImpatience = 3;

// Signals that belong to the command, and those that tell of the terminal: SIGWINCH, SIGCONT.
sigset_t handled_signals();

// Blocks handled_signals(), so that they wait for a Signals, and ignores SIGPIPE. To be called
// before other threads exist.
void take_signals();

// Reads them. The loop must be drained before it is destroyed.
class Signals {
 public:
  Signals(AsyncIo& io, std::function<void(int signal)> on_signal);
  // Fails when the kernel gives no signalfd.
  Result<void> start();
  void stop() { io_.cancel(read_); }

 private:
  void read();
  void on_read(std::int32_t result);

  AsyncIo& io_;
  std::function<void(int signal)> on_signal_;
  Fd fd_;
  signalfd_siginfo signal_{};
  iovec iovec_{&signal_, sizeof signal_};
  Operation read_;
};

}  // namespace msb::launcher
