// SPDX-License-Identifier: Apache-2.0
// Completion in shells: `msb completion SHELL` prints a script that asks `msb __complete WORDS...`.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace msb::cli {

// What names there are to choose from.
enum class NameSet : std::uint8_t {
  kAll,        // of sandboxes: the project's, installed ones, and what runs
  kProject,    // of the Sandboxfile
  kInstalled,  // aliases
  kRunning,
  kImages,
  kScripts  // of one sandbox
};

// `file`: what -f said. `sandbox`: whose scripts.
using NameSource = std::function<std::vector<std::string>(NameSet set, const std::string& file,
                                                          const std::string& sandbox)>;

// The words that the last of `words` may be meant to become; `words` begin with the program's name.
// None: whatever the shell thinks, which is files.
std::vector<std::string> complete(const CLI::App& app, const std::vector<std::string>& words,
                                  const NameSource& names);

// From the disk. What cannot be read has no names.
std::vector<std::string> known_names(NameSet set, const std::string& file,
                                     const std::string& sandbox);

// For bash, zsh or fish; nothing for other shells.
std::optional<std::string_view> completion_script(std::string_view shell);

// Prints the candidates, one a line.
Result<void> print_candidates(const CLI::App& app, const std::vector<std::string>& words);
Result<void> print_completion_script(const std::string& shell);

}  // namespace msb::cli
