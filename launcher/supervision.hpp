// SPDX-License-Identifier: Apache-2.0
// How a sandbox is looked after while it runs, as the user of `msb-vmm run` wrote it.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace msb::launcher {

struct SupervisionOptions {
  std::string name;  // for `status`
  // A directory of its own for its sockets, "agent" and "control"; it is removed at the end with
  // all that is in it. Empty: none.
  std::string runtime;
  int events = -1;              // the writing end of a pipe that gets them; negative: none
  bool background = false;      // it runs without our standard streams, and outlives who started it
  bool may_detach = false;      // Ctrl-P Ctrl-Q in a terminal puts it into the background
  bool idle = false;            // it has no command, and runs until it is stopped
  std::string log;              // a file that gets what the command writes; empty: none
  std::string record;           // a file that gets what became of the sandbox; empty: none
  std::uint64_t timeout_s = 0;  // after which it is stopped; 0: never
  std::uint64_t idle_timeout_s = 0;  // after so long in which nothing happened
};

// `process`: whether a command, or a terminal for one, was asked for.
Result<void> check_supervision(const SupervisionOptions& options, bool process);

}  // namespace msb::launcher
