// SPDX-License-Identifier: Apache-2.0
#include "cli/interruption.hpp"

#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace msb::cli {

Result<Interruption> Interruption::watch() {
  sigset_t set{};
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action{};
    // What our parent lets us ignore, as nohup(1) does, stays ignored.
    if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) {
      sigaddset(&set, signal);
    }
  }
  Fd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals || ::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) {
    return fail_errno(errno, "cannot watch for signals");
  }
  return Interruption(std::move(signals));
}

std::optional<int> Interruption::status() {
  signalfd_siginfo info{};
  if (::read(signals_.get(), &info, sizeof info) != sizeof info) {
    return std::nullopt;
  }
  constexpr int kSignalled = 128;
  return kSignalled + static_cast<int>(info.ssi_signo);
}

}  // namespace msb::cli
