// SPDX-License-Identifier: Apache-2.0
// The user's consent to what a Sandboxfile reaches beyond its project: a cloned repository must not
// read a home directory by being run.
#pragma once

#include "base/result.hpp"
#include "sandbox/launch.hpp"
#include "sandbox/project.hpp"

namespace msb::cli {

// Asks once for a project and what it wants; with `yes` it is agreed to without. Fails when the
// user does not agree, or nobody can be asked.
Result<void> agree(const sandbox::Project& project, const sandbox::Sandboxfile::Entry& entry,
                   bool yes);

// Of a project's sandbox: that the files which it is about to get are those that were agreed to. A
// sandbox that writes into its project can put a link in the place of a directory at any time.
Result<void> check_agreed(const sandbox::LaunchOptions& options);

}  // namespace msb::cli
