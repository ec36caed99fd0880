// SPDX-License-Identifier: Apache-2.0
// Other programs that a sandbox's life takes: msb-vmm, mke2fs.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::sandbox {

struct ProgramOptions {
  std::string path;
  std::vector<std::string> arguments;  // argv
  std::vector<int> inherited;          // descriptors that it has too, under the same numbers
  bool streams = false;                // it has our standard streams; else /dev/null
};

// A program that was started. It is not ended with this object.
struct Program {
  pid_t pid = -1;
  Fd process;  // a pidfd
};
Result<Program> start_program(const ProgramOptions& options);

// Waits for its end: its exit status, or 128 plus the signal that ended it.
int wait_for(const Program& program);

// Runs it to its end; fails with what it wrote on standard error when its status is not 0.
Result<void> run_program(const std::string& path, std::vector<std::string> arguments);

// The directory of the running program, in which msb-vmm is too.
Result<std::string> program_directory();

}  // namespace msb::sandbox
