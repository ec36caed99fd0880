// SPDX-License-Identifier: Apache-2.0
// The parts of msb that are programs of their own: msb itself starts faster without the libraries
// that they take, and most of what it does needs none of them.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"

namespace msb::cli {

// msb-registry carries out what speaks to registries, msb-server is the server.
inline constexpr const char* kRegistryProgram = "msb-registry";
inline constexpr const char* kServerProgram = "msb-server";

// The path of one.
Result<std::string> part_path(const char* name);
// Becomes it, with this program's own arguments. Returns only when that fails.
Error become_part(const char* name);
// Becomes a program, with these arguments (argv). Returns only when that fails.
Error become_program(const std::string& path, std::vector<std::string> arguments);

}  // namespace msb::cli
