// SPDX-License-Identifier: Apache-2.0
// The caller's terminal, as a window to a terminal in the guest.
#pragma once

#include <termios.h>

#include <optional>

#include "base/result.hpp"
#include "protocol/host_frames.hpp"

namespace msb::launcher {

// The size of the terminal `fd`, or nothing when it is none.
std::optional<protocol::TerminalSize> terminal_size(int fd);

// A terminal that can be put into raw mode, in which every key goes to the guest (cfmakeraw(3)),
// and that gets its own mode back at the end of this object, and before the process dies of a
// signal like SIGSEGV or SIGABRT. One at a time in a process.
class Terminal {
 public:
  // `fd` must outlive it.
  explicit Terminal(int fd) : fd_(fd) {}
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() { restore(); }

  // Also again, after whoever stopped and continued the process has set another mode. Fails when
  // `fd` is no terminal.
  Result<void> make_raw();
  void restore();
  [[nodiscard]] std::optional<protocol::TerminalSize> size() const { return terminal_size(fd_); }

 private:
  const int fd_;
  bool raw_ = false;
};

}  // namespace msb::launcher
