// SPDX-License-Identifier: Apache-2.0
#include "launcher/terminal.hpp"

#include <doctest/doctest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "base/fd.hpp"

namespace msb::launcher {
namespace {

struct Pty {
  Pty() {
    const winsize size{.ws_row = 30, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    int master = -1;
    int slave = -1;
    REQUIRE(::openpty(&master, &slave, nullptr, nullptr, &size) == 0);
    ours = Fd(master);
    theirs = Fd(slave);
    before = mode();
  }
  [[nodiscard]] termios mode() const {
    termios mode{};
    REQUIRE(::tcgetattr(theirs.get(), &mode) == 0);
    return mode;
  }
  [[nodiscard]] bool as_before() const {
    const termios now = mode();
    return now.c_lflag == before.c_lflag && now.c_iflag == before.c_iflag &&
           now.c_oflag == before.c_oflag && now.c_cflag == before.c_cflag;
  }
  [[nodiscard]] bool raw() const { return (mode().c_lflag & (ICANON | ECHO | ISIG)) == 0; }
  Fd ours, theirs;
  termios before{};
};

TEST_CASE("a terminal is raw as long as its object says, and then as before") {
  const Pty pty;
  {
    Terminal terminal(pty.theirs.get());
    CHECK(pty.as_before());
    REQUIRE(terminal.make_raw());
    CHECK(pty.raw());
    REQUIRE(::tcsetattr(pty.theirs.get(), TCSANOW, &pty.before) == 0);  // as a shell does meanwhile
    REQUIRE(terminal.make_raw());
    CHECK(pty.raw());
    CHECK(terminal.size()->rows == 30);
    CHECK(terminal.size()->columns == 100);
    terminal.restore();
    CHECK(pty.as_before());
    REQUIRE(terminal.make_raw());
  }
  CHECK(pty.as_before());
}

TEST_CASE("a process that dies of a signal gives the terminal back, and dies of it still") {
  for (const int signal : {SIGSEGV, SIGABRT, SIGFPE}) {
    CAPTURE(signal);
    const Pty pty;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::signal(signal, SIG_DFL);  // not the sanitizer's
      Terminal terminal(pty.theirs.get());
      if (terminal.make_raw() && pty.raw()) {
        ::raise(signal);
      }
      ::_exit(1);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == signal);
    CHECK(pty.as_before());
  }
}

TEST_CASE("what is no terminal has no size and no raw mode") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const Fd read(ends[0]);
  const Fd write(ends[1]);
  Terminal terminal(read.get());
  CHECK_FALSE(terminal.size());
  CHECK_FALSE(terminal.make_raw());
}

}  // namespace
}  // namespace msb::launcher
