// SPDX-License-Identifier: Apache-2.0
// Programs as child processes, by posix_spawn(3): without a copy of this process, and with nothing
// of it but what is said here.
#pragma once

#include <spawn.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb {

// A child, which is not ended with this object, and has to be waited for.
struct Spawned {
  pid_t pid = -1;
  Fd process;  // a pidfd: readable once it has ended
};

// What a child starts with. It blocks no signals; descriptors without FD_CLOEXEC it has as they
// are.
class Spawn {
 public:
  Spawn();
  Spawn(const Spawn&) = delete;
  Spawn& operator=(const Spawn&) = delete;
  ~Spawn();

  // In the order of the calls:
  // `number` is /dev/null there, for both ways.
  void null(int number);
  // `own`, which is borrowed until start(), is `number` there.
  void give(int own, int number);
  // It has none from `first` on but what is given later.
  void close_from(int first);

  // In a session of its own: a Ctrl-C in our terminal does not reach it.
  void own_session();
  // Signals that this process ignores, which it would ignore too: SIGPIPE alone otherwise has its
  // usual effect there.
  void usual_signals();

  // `program`: a path, or a name that is looked for along PATH. `environment`: it gets ours, or an
  // empty one. Fails with the errno as code.
  Result<Spawned> start(const std::string& program, std::vector<std::string> arguments,
                        bool environment = true);

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
  short flags_ = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
};

// Waits for its end: its exit status, or 128 plus the signal that ended it; 125 when somebody else
// has waited for it.
int wait_for(const Spawned& child);

}  // namespace msb
