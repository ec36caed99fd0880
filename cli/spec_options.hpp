// SPDX-License-Identifier: Apache-2.0
// The options that say what a sandbox is to be, of `exe`, `install` and `add`.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "sandbox/spec.hpp"

namespace msb::cli {

// As the user wrote them.
struct SpecWords {
  std::string cpus;
  std::string memory;
  std::string disk;
  std::string processes;
  std::vector<std::string> volumes;
  std::vector<std::string> ports;
  std::vector<std::string> envs;
  std::vector<std::string> env_files;
  std::string workdir;
  std::string user;
  std::string shell;
  std::string scope;
  std::vector<std::string> network;
  std::string timeout;
  std::string idle_timeout;
};

void add_spec_options(CLI::App& command, SpecWords& words);

// `image` is the spec's. Fails with the option and what it may be.
Result<sandbox::SandboxSpec> make_spec(const std::string& image, const SpecWords& words);

}  // namespace msb::cli
