// SPDX-License-Identifier: Apache-2.0
// What runs now. Every running sandbox has a directory of its own below
// $XDG_RUNTIME_DIR/microsandbox (or /tmp/microsandbox-UID), which has its sockets:
//
//   <id>/lock       held by the supervisor: a directory whose lock is free is left from a dead one
//   <id>/identity   what sandbox it is, as JSON
//   <id>/agent      msb-vmm's --socket
//   <id>/control    msb-vmm's --control
//   <id>/output     of a temporary sandbox in the background: what its command wrote
//   state-<hash>    a link to the directory of the sandbox that has that state
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "sandbox/identity.hpp"

namespace msb::sandbox {

// A sandbox that ran when it was looked for.
struct Running {
  Identity who;
  std::string id;         // eight hexadecimal digits
  std::string directory;  // its runtime directory

  [[nodiscard]] std::string agent_socket() const { return directory + "/agent"; }
  [[nodiscard]] std::string control_socket() const { return directory + "/control"; }
};

// A fresh runtime directory and its lock, to be handed to the supervisor. The directory is not
// removed by this object.
struct RuntimeDirectory {
  Running running;
  Fd lock;
};
Result<RuntimeDirectory> make_runtime_directory(const Identity& who);

// For one that keeps its state, whose lock has to be held: from now on lasting_agent_socket() leads
// to it.
Result<void> make_lasting_link(const Running& running);
// Where the agent's socket of the sandbox with that state is whenever it runs.
Result<std::string> lasting_agent_socket(const std::string& state);

// Whether its supervisor is there still.
bool is_alive(const Running& running);

// Removes it.
void remove_runtime_directory(const Running& running);

// Removes what dead ones left. What cannot be removed now is removed another time.
void clear_dead();

// All that run, oldest first; removes what dead ones left. A directory that is damaged is passed
// over.
Result<std::vector<Running>> list_running();

}  // namespace msb::sandbox
