// SPDX-License-Identifier: Apache-2.0
// The environment of a command.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"

namespace msb::launcher {

// `base` (NAME=VALUE) with the user's words in front: NAME=VALUE, or NAME for the launcher's own
// value, when it has one. Adds the PATH that container engines give when there is none. What is no
// NAME=VALUE in `base` is left out. Fails for a word without a name.
Result<std::vector<std::string>> make_environment(const std::vector<std::string>& base,
                                                  const std::vector<std::string>& words);

// Puts a directory in front of PATH.
void prepend_path(std::vector<std::string>& environment, const std::string& directory);

// Adds the caller's TERM when there is none, for a command with a terminal.
void add_terminal_type(std::vector<std::string>& environment);

}  // namespace msb::launcher
