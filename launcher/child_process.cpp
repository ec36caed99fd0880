// SPDX-License-Identifier: Apache-2.0
#include "launcher/child_process.hpp"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <vector>

#include "base/spawn.hpp"

namespace msb::launcher {

Result<ChildProcess> ChildProcess::start(ChildOptions options) {
  Spawn spawn;
  spawn.own_session();
  spawn.usual_signals();
  spawn.null(STDIN_FILENO);
  spawn.null(STDOUT_FILENO);
  int last = STDERR_FILENO;
  for (const auto& [own, number] : options.descriptors) {
    last = std::max(last, number);
  }
  // Moved out of the way first, so that none lands on another's place.
  std::vector<Fd> moved;
  for (const auto& [own, number] : options.descriptors) {
    moved.emplace_back(::fcntl(own, F_DUPFD_CLOEXEC, last + 1));
    if (!moved.back()) {
      return fail_errno(errno, "cannot duplicate a descriptor for {}", options.program);
    }
    spawn.give(moved.back().get(), number);
  }
  spawn.close_from(last + 1);
  auto child = spawn.start(options.program, std::move(options.arguments), options.environment);
  if (!child) {
    return std::unexpected(child.error());
  }
  return ChildProcess(std::move(child->process), child->pid);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : process_(std::move(other.process_)), pid_(std::exchange(other.pid_, -1)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this != &other) {
    end();
    process_ = std::move(other.process_);
    pid_ = std::exchange(other.pid_, -1);
  }
  return *this;
}

ChildProcess::~ChildProcess() {
  end();
}

// It is our child and not waited for, so the number is still its own. One that has ended already
// keeps its status.
void ChildProcess::kill() const {
  if (pid_ >= 0) {
    ::kill(pid_, SIGKILL);
  }
}

std::string ChildProcess::end() {
  if (pid_ < 0) {
    return "";
  }
  kill();
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                             : fmt::format("exit status {}", WEXITSTATUS(status));
}

}  // namespace msb::launcher
