// SPDX-License-Identifier: Apache-2.0
#include "launcher/terminal.hpp"

#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

namespace msb::launcher {

namespace {

constexpr std::array kDeadlySignals = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

// What a signal handler needs, which cannot be given anything else.
struct Saved {
  int fd = -1;
  termios mode{};
  std::array<struct sigaction, kDeadlySignals.size()> actions{};
};
Saved saved;

// Only functions of signal-safety(7).
void on_deadly_signal(int signal) {
  ::tcsetattr(saved.fd, TCSANOW, &saved.mode);
  for (std::size_t i = 0; i < kDeadlySignals.size(); ++i) {
    if (kDeadlySignals[i] == signal) {
      ::sigaction(signal, &saved.actions[i], nullptr);
    }
  }
  ::raise(signal);  // delivered, to what it would have met, when this handler returns
}

}  // namespace

std::optional<protocol::TerminalSize> terminal_size(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0) {
    return std::nullopt;
  }
  return protocol::TerminalSize{size.ws_row, size.ws_col};
}

Result<void> Terminal::make_raw() {
  if (!raw_) {
    if (::tcgetattr(fd_, &saved.mode) != 0) {
      return fail_errno(errno, "standard input is not a terminal");
    }
    saved.fd = fd_;
    struct sigaction action{};
    action.sa_handler = on_deadly_signal;
    for (std::size_t i = 0; i < kDeadlySignals.size(); ++i) {
      ::sigaction(kDeadlySignals[i], &action, &saved.actions[i]);
    }
    raw_ = true;
  }
  termios raw = saved.mode;
  ::cfmakeraw(&raw);
  if (::tcsetattr(fd_, TCSANOW, &raw) != 0) {
    return fail_errno(errno, "cannot set the terminal's mode");
  }
  return {};
}

void Terminal::restore() {
  if (std::exchange(raw_, false)) {
    // Not TCSADRAIN, which would wait for whoever reads the terminal's other side.
    ::tcsetattr(fd_, TCSANOW, &saved.mode);
    for (std::size_t i = 0; i < kDeadlySignals.size(); ++i) {
      ::sigaction(kDeadlySignals[i], &saved.actions[i], nullptr);
    }
    saved.fd = -1;
  }
}

}  // namespace msb::launcher
