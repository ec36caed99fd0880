// SPDX-License-Identifier: Apache-2.0
// `msb exe`, `run` and `shell`: what starts one sandbox and stays with it.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/spec_options.hpp"

namespace msb::cli {

// How a command is to be run.
struct RunWords {
  std::string file;                    // -f
  std::string name;                    // NAME[~SCRIPT], or IMAGE[~SCRIPT] of `exe`
  std::string exec;                    // a program instead of what would run
  std::vector<std::string> arguments;  // what came behind "--"
  bool detach = false;
  bool no_terminal = false;
  bool yes = false;    // agree to what reaches beyond the project
  std::string called;  // `exe`: the sandbox's name
  bool debug = false;
};

// Each gives the exit status.
Result<int> exe(const RunWords& words, const SpecWords& spec);
Result<int> run(const RunWords& words);
Result<int> shell(const RunWords& words);

}  // namespace msb::cli
