// SPDX-License-Identifier: Apache-2.0
// What depends on what in a Sandboxfile. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "sandbox/sandboxfile.hpp"

namespace msb::sandbox {

// The first dependency that cannot be: on what is not there, on itself, one that is said twice, one
// in a circle ("a -> b -> a"), or one that makes a chain of more than kMaxDependencyDepth.
std::optional<YamlFlaw> find_dependency_flaw(const Sandboxfile& file);

// The sandboxes `names` (none: all) and all that they depend on, in levels: those of one may start
// together when those before it have. In the file's order within a level. Fails for a name that is
// not there, with the nearest, and for what find_dependency_flaw() finds.
Result<std::vector<std::vector<std::string>>> dependency_levels(
    const Sandboxfile& file, const std::vector<std::string>& names);

}  // namespace msb::sandbox
