// SPDX-License-Identifier: Apache-2.0
#include "launcher/child_process.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <memory>

namespace msb::launcher {

namespace {

// The two arguments of posix_spawn(3) that have to be destroyed.
class SpawnSettings {
 public:
  SpawnSettings() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    sigset_t none;
    sigset_t all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    ::posix_spawnattr_setflags(&attributes,
                               POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
};

}  // namespace

Result<ChildProcess> ChildProcess::start(ChildOptions options) {
  SpawnSettings settings;
  ::posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
  ::posix_spawn_file_actions_adddup2(&settings.actions, STDIN_FILENO, STDOUT_FILENO);
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
    ::posix_spawn_file_actions_adddup2(&settings.actions, moved.back().get(), number);
  }
  ::posix_spawn_file_actions_addclosefrom_np(&settings.actions, last + 1);
  std::vector<char*> arguments;
  arguments.reserve(options.arguments.size() + 1);
  for (std::string& argument : options.arguments) {
    arguments.push_back(argument.data());
  }
  arguments.push_back(nullptr);
  char* nothing[] = {nullptr};
  pid_t pid = -1;
  const int status =
      ::posix_spawnp(&pid, options.program.c_str(), &settings.actions, &settings.attributes,
                     arguments.data(), options.environment ? environ : nothing);
  if (status != 0) {
    return fail_errno(status, "cannot start {}", options.program);
  }
  // Not waited for yet, so the number is still its own.
  Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const int code = errno;
  ChildProcess child(std::move(process), pid);
  if (child.process() < 0) {
    return fail_errno(code, "cannot watch {}", options.program);
  }
  return child;
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
