// SPDX-License-Identifier: Apache-2.0
// Sandboxes as commands: `msb install` writes a small script into ~/.local/bin that enters one.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/context.hpp"
#include "cli/spec_options.hpp"
#include "cli/starting.hpp"
#include "sandbox/identity.hpp"
#include "sandbox/spec.hpp"

namespace msb::cli {

struct InstallWords {
  std::string image;  // IMAGE[~SCRIPT]
  std::string alias;  // empty: the image's last name
  std::string exec;
  std::vector<std::string> arguments;
  bool temporary = false;  // keeps nothing
};

Result<void> install(const InstallWords& words, const SpecWords& spec);
// Removes the script, if it is one of ours, and all that the sandbox has kept.
Result<void> uninstall(const std::string& alias);
// The same of all that are installed.
Result<void> uninstall_all();
// Those that are installed.
Result<void> list_installed(Format format);

// What the script calls: runs the alias's command, with `arguments` behind.
Result<int> run_installed(const std::string& alias, const std::vector<std::string>& arguments,
                          bool debug);

// What an installed sandbox is. Its paths are absolute.
Result<sandbox::SandboxSpec> read_installed(const std::string& state);
// How it is started.
Begin installed_begin(const sandbox::Identity& who, const sandbox::SandboxSpec& spec);

}  // namespace msb::cli
