// SPDX-License-Identifier: Apache-2.0
// Commands in sandboxes that run, or that are started to be entered.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "cli/starting.hpp"
#include "cli/target.hpp"
#include "sandbox/launch.hpp"

namespace msb::cli {

// How a command is run in a sandbox that runs.
struct ExecWords {
  std::vector<std::string> command;
  bool entrypoint = false;        // the image's comes in front
  bool extend = false;            // the image's own command comes in front
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
  Fd foothold;           // a connection into its guest, for whose life it does not end of idleness
};
// A sandbox that keeps its state, as it runs; when it does not, it is started with nothing in it,
// and ends a little after the last of those who entered has left.
Result<Entered> make_run(Begin begin_words);

// A connection into the guest of one that runs: while it is open the sandbox does not end of
// idleness. Fails with code ESRCH, once the sandbox has ended, when that came first.
Result<Fd> step_in(const sandbox::Running& running);

// Waits for one that ends by itself; whether it has.
bool await_departure(const sandbox::Running& running, std::chrono::seconds patience);

// exec_in() of one that runs, and does not end meanwhile. Fails with code ESRCH when it has ended.
Result<int> enter_running(const sandbox::Running& running, const ExecWords& words);

// exec_in() of make_run().
Result<int> enter(Begin begin_words, const ExecWords& words);

}  // namespace msb::cli
