// SPDX-License-Identifier: Apache-2.0
// Commands in sandboxes that run, or that are started to be entered.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/starting.hpp"
#include "cli/target.hpp"
#include "sandbox/launch.hpp"

namespace msb::cli {

// How a command is run in a sandbox that runs.
struct ExecWords {
  std::vector<std::string> command;
  bool image_command = false;     // `command` is arguments of the image's own command
  std::vector<std::string> envs;  // NAME=VALUE, or NAME for the caller's own
  std::string workdir;
  std::string user;
  std::string timeout;
  bool detach = false;
  bool no_terminal = false;
};

// Runs it with the environment, directory and user of the sandbox's own command. Becomes msb-vmm,
// so that it returns only when that fails.
Result<int> exec_in(const sandbox::Running& running, const ExecWords& words);

// One that runs, or that another process has just begun to start and that has no sockets yet: waits
// for them, but not for ever. Fails when it does not run any more.
Result<sandbox::Running> wait_for_start(const sandbox::Identity& who);

struct Entered {
  sandbox::Running running;
  bool started = false;  // by us
};
// A sandbox that keeps its state, as it runs; when it does not, it is started with nothing in it,
// and ends a little after the last of those who entered has left.
Result<Entered> make_run(Begin begin_words);

// exec_in() of make_run().
Result<int> enter(Begin begin_words, const ExecWords& words);

}  // namespace msb::cli
