// SPDX-License-Identifier: Apache-2.0
// Changes to a Sandboxfile's text that leave everything else in it as it is, byte for byte:
// comments, order, indentation, line ends. Pure. The new text is parsed, and what it says compared
// with what it should, before it is given away.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "sandbox/spec.hpp"

namespace msb::sandbox {

// Adds `name` behind the other sandboxes. Fails when there is one of that name, when `spec` cannot
// be said in a Sandboxfile, and when the text is written in a way that this does not know.
Result<std::string> add_sandbox(std::string_view text, const std::string& name,
                                const SandboxSpec& spec);

// Removes it, with the lines of comment directly above it. Fails when another depends on it.
Result<std::string> remove_sandbox(std::string_view text, const std::string& name);
// Several, which may depend on each other.
Result<std::string> remove_sandboxes(std::string_view text, std::span<const std::string> names);

}  // namespace msb::sandbox
