// SPDX-License-Identifier: Apache-2.0
// From a spec to what launch() needs: volumes opened, variables read.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "sandbox/image_choice.hpp"
#include "sandbox/launch.hpp"
#include "sandbox/spec.hpp"

namespace msb::sandbox {

struct Variables {
  std::vector<std::string> variables;  // NAME=VALUE
  std::vector<std::string> files;      // that they were read from, by their real paths
};

// The spec's variables: those of its files first, so that its own words count. `directory`: what
// its paths are relative to.
Result<Variables> read_variables(const SandboxSpec& spec, const std::string& directory);

// Everything but `hosts`, `task` and how it is shown, which are the caller's to add.
Result<LaunchOptions> compose(const Identity& who, const SandboxSpec& spec,
                              const std::string& directory, const ImageChoice& image,
                              const std::string& home);

}  // namespace msb::sandbox
