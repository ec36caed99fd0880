// SPDX-License-Identifier: Apache-2.0
// What starts a sandbox from the command line: its image is pulled when it is missing, the user is
// asked where something reaches beyond the project, and what the supervisor says is shown.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "sandbox/identity.hpp"
#include "sandbox/launch.hpp"
#include "sandbox/project.hpp"
#include "sandbox/spec.hpp"

namespace msb::cli {

struct Begin {
  sandbox::Identity who;
  sandbox::SandboxSpec spec;
  std::string image_place;  // where the image was written, for errors: "Sandboxfile:3:12"; or empty
  std::string directory;    // what the spec's paths are relative to
  sandbox::Task task;
  std::vector<std::string> hosts;  // NAME=SOCKET:PORT
  bool background = false;
  bool terminal = false;
  bool aside = false;  // it is only looked at: its log and its record stay as they are
  bool debug = false;
};

// Pulls the image if it has to be, and starts. Fails with code kAlreadyRunning when it runs.
Result<sandbox::Launched> begin(const Begin& words);

// Pulls an image unless it is here. `directory`: what a local one is relative to.
Result<void> ensure_image(const std::string& image, const std::string& directory);

// Waits until a sandbox in the background runs. Fails with what it failed of. `running`: gets what
// the supervisor says of it then; may be null.
Result<void> await_running(sandbox::Launched& launched, sandbox::Launched::Json* running = nullptr);

// Waits for one in the foreground: until it ends, or the user lets go of it. Its exit status.
Result<int> accompany(sandbox::Launched& launched);

// Whether standard input and output are a terminal, which a command then gets too.
bool at_terminal();

// Becomes msb-vmm, with these arguments; returns only when that fails.
Error become_vmm(std::vector<std::string> arguments);

}  // namespace msb::cli
