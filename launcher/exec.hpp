// SPDX-License-Identifier: Apache-2.0
// `msb-vmm exec`, `attach`, `ps`, `kill` and `forget`: processes in a machine that runs, over its
// socket.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launcher/outcome.hpp"

namespace msb::launcher {

// As the user wrote it; empty fields leave what the protocol has.
struct ExecOptions {
  std::string socket;
  std::vector<std::string> command;
  std::vector<std::string> environment;  // NAME=VALUE, or NAME for the launcher's own value
  std::string directory;
  std::string user;
  std::vector<std::string> groups;
  std::vector<std::string> limits;  // NAME=SOFT[:HARD]
  std::string umask;
  std::string timeout;  // seconds
  std::string label;
  std::optional<std::uint32_t> keep;  // bytes; the process outlives this program
  bool terminal = false;
  bool interactive = false;  // with `detach`: keep its standard input for who attaches later
  bool no_input = false;
  bool detach = false;
};

// Each runs to its end. The caller prints the message.
Outcome exec(const ExecOptions& options);
// `process`: the id of one that is kept, or "main" for the sandbox's own command.
Outcome attach(const std::string& socket, const std::string& process, bool from_start);
Outcome list_processes(const std::string& socket);
// `group`: its whole process group.
Outcome kill_process(const std::string& socket, const std::string& process,
                     const std::string& signal, bool group);
// A kept process that has ended: what it wrote, and how it ended, is let go of.
Outcome forget_process(const std::string& socket, const std::string& process);

}  // namespace msb::launcher
