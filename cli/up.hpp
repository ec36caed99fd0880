// SPDX-License-Identifier: Apache-2.0
// `msb up`, `down` and `apply`: the sandboxes of a project in the background.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/starting.hpp"
#include "cli/target.hpp"
#include "sandbox/project.hpp"

namespace msb::cli {

struct UpWords {
  std::string file;                // -f
  std::vector<std::string> names;  // none: all
  bool yes = false;                // agree to what reaches beyond the project
  bool debug = false;
};

// How one of a project's is started: after the user's agreement, with what it depends on under its
// name. Dependencies that do not run have no ports to be reached at.
Result<Begin> begin_of(const sandbox::Project& project, const sandbox::Sandboxfile::Entry& entry,
                       const UpWords& words);

// Starts those, and what they depend on first, each once what it depends on is ready. Those that
// run stay as they are. `but_for`: a name that is not started itself.
Result<void> bring_up(const sandbox::Project& project, const UpWords& words,
                      const std::string& but_for = "");

Result<void> up(const UpWords& words);
Result<void> down(const UpWords& words);
// Starts what is missing, and stops those of the project that its file does not have any more.
Result<void> apply(const UpWords& words);

}  // namespace msb::cli
