// SPDX-License-Identifier: Apache-2.0
#include "launcher/signals.hpp"

#include <cerrno>
#include <utility>

namespace msb::launcher {

sigset_t handled_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT}) {
    ::sigaddset(&set, signal);
  }
  return set;
}

void take_signals() {
  const sigset_t set = handled_signals();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

Signals::Signals(AsyncIo& io, std::function<void(int signal)> on_signal)
    : io_(io),
      on_signal_(std::move(on_signal)),
      read_([this](std::int32_t result) { on_read(result); }) {}

Result<void> Signals::start() {
  const sigset_t set = handled_signals();
  fd_.reset(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!fd_) {
    return fail_errno(errno, "cannot watch for signals");
  }
  read();
  return {};
}

void Signals::read() {
  io_.read(fd_.get(), {&iovec_, 1}, AsyncIo::kNoOffset, read_);
}

void Signals::on_read(std::int32_t result) {
  if (result == -ECANCELED) {
    return;
  }
  read();
  if (result == static_cast<std::int32_t>(sizeof signal_)) {
    on_signal_(static_cast<int>(signal_.ssi_signo));
  }
}

}  // namespace msb::launcher
