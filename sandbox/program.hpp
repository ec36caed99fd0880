// SPDX-License-Identifier: Apache-2.0
// Other programs that a sandbox's life takes: msb-vmm, mke2fs.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/spawn.hpp"

namespace msb::sandbox {

struct ProgramOptions {
  std::string path;
  std::vector<std::string> arguments;  // argv
  std::vector<int> inherited;          // descriptors that it has too, under the same numbers
  bool streams = false;                // it has our standard streams; else /dev/null
};

Result<Spawned> start_program(const ProgramOptions& options);

// Runs it to its end; fails with what it wrote on standard error when its status is not 0.
// `inherited`: as of ProgramOptions.
Result<void> run_program(const std::string& path, std::vector<std::string> arguments,
                         const std::vector<int>& inherited = {});

// The directory of the running program, in which msb-vmm is too.
Result<std::string> program_directory();

}  // namespace msb::sandbox
