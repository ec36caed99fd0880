// SPDX-License-Identifier: Apache-2.0
#include "base/spawn.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <utility>

namespace msb {

Spawn::Spawn() {
  ::posix_spawn_file_actions_init(&actions_);
  ::posix_spawnattr_init(&attributes_);
  sigset_t none;
  sigset_t usual;
  ::sigemptyset(&none);
  ::sigemptyset(&usual);
  ::sigaddset(&usual, SIGPIPE);
  ::posix_spawnattr_setsigmask(&attributes_, &none);
  ::posix_spawnattr_setsigdefault(&attributes_, &usual);
}

Spawn::~Spawn() {
  ::posix_spawn_file_actions_destroy(&actions_);
  ::posix_spawnattr_destroy(&attributes_);
}

void Spawn::null(int number) {
  ::posix_spawn_file_actions_addopen(&actions_, number, "/dev/null", O_RDWR, 0);
}

// To itself: it loses its close-on-exec flag there.
void Spawn::give(int own, int number) {
  ::posix_spawn_file_actions_adddup2(&actions_, own, number);
}

void Spawn::close_from(int first) {
  ::posix_spawn_file_actions_addclosefrom_np(&actions_, first);
}

void Spawn::own_session() {
  flags_ |= POSIX_SPAWN_SETSID;
}

void Spawn::usual_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::posix_spawnattr_setsigdefault(&attributes_, &all);
}

Result<Spawned> Spawn::start(const std::string& program, std::vector<std::string> arguments,
                             bool environment) {
  ::posix_spawnattr_setflags(&attributes_, flags_);
  std::vector<char*> words;
  words.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) {
    words.push_back(argument.data());
  }
  words.push_back(nullptr);
  char* nothing[] = {nullptr};
  Spawned child;
  const int code = ::posix_spawnp(&child.pid, program.c_str(), &actions_, &attributes_,
                                  words.data(), environment ? environ : nothing);
  if (code != 0) {
    return fail_errno(code, "cannot start '{}'", program);
  }
  // Not waited for yet, so the number is still its own.
  child.process.reset(static_cast<int>(::syscall(SYS_pidfd_open, child.pid, 0)));
  if (!child.process) {
    const int why = errno;
    ::kill(child.pid, SIGKILL);
    [[maybe_unused]] const int status = wait_for(child);
    return fail_errno(why, "cannot watch '{}'", program);
  }
  return child;
}

int wait_for(const Spawned& child) {
  int status = 0;
  pid_t waited = 0;
  while ((waited = ::waitpid(child.pid, &status, 0)) < 0 && errno == EINTR) {
  }
  constexpr int kSignal = 128;
  constexpr int kUnknown = 125;
  if (waited < 0) {
    return kUnknown;
  }
  return WIFSIGNALED(status) ? kSignal + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace msb
