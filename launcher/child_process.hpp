// SPDX-License-Identifier: Apache-2.0
// A program that works for this one, as its own process.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::launcher {

struct ChildOptions {
  std::string program;                 // a path, or a name that is looked for along PATH
  std::vector<std::string> arguments;  // argv
  bool environment = false;            // it gets this process's, or an empty one
  // Descriptors of this process, borrowed, and which numbers they have there: from 2 on, one after
  // the other. It has no others but 0 and 1, which are /dev/null; 2 is this process's unless it is
  // among them.
  std::vector<std::pair<int, int>> descriptors;
};

// Owns the process: it does not outlive this object. In a session of its own, so that a Ctrl-C in
// our terminal, which is for the command in the guest, does not reach it.
class ChildProcess {
 public:
  // Fails with the errno as code.
  static Result<ChildProcess> start(ChildOptions options);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  // A pidfd: readable once it has ended, however it ended.
  [[nodiscard]] int process() const { return process_.get(); }
  // Ends it, without waiting.
  void kill() const;
  // Ends it if it still runs, and says how it ended: "exit status 1", "signal 9". Nothing the
  // second time.
  std::string end();

 private:
  ChildProcess(Fd process, pid_t pid) : process_(std::move(process)), pid_(pid) {}
  Fd process_;
  pid_t pid_ = -1;  // -1 once it was waited for
};

}  // namespace msb::launcher
