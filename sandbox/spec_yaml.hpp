// SPDX-License-Identifier: Apache-2.0
// A spec as lines of a Sandboxfile. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "sandbox/spec.hpp"

namespace msb::sandbox {

// How a file is written.
struct YamlStyle {
  std::size_t indent = 2;  // blanks before a sandbox's name
  std::size_t step = 2;    // more of them with each level
  std::string_view line_end = "\n";
};

// "NAME:" and the fields of `spec` that are said, each line with its end.
std::string to_yaml(const std::string& name, const SandboxSpec& spec, const YamlStyle& style);

}  // namespace msb::sandbox
