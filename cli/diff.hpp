// SPDX-License-Identifier: Apache-2.0
// `msb diff`: what a sandbox changed of its image.
#pragma once

#include <string>

#include "base/result.hpp"
#include "cli/context.hpp"

namespace msb::cli {

struct DiffWords {
  std::string file;  // -f
  std::string name;
  Format format = Format::kTable;
};

Result<void> diff(const DiffWords& words);

// The same of one that runs, by its agent's socket: "A /path", "C /path" or "D /path" a line, in
// the order of the paths.
Result<void> print_diff(const std::string& agent_socket, Format format);

}  // namespace msb::cli
