// SPDX-License-Identifier: Apache-2.0
// A project: a directory with a Sandboxfile, and what its sandboxes keep in menv beside it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "sandbox/identity.hpp"
#include "sandbox/sandboxfile.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::sandbox {

inline constexpr const char* kSandboxfile = "Sandboxfile";
inline constexpr const char* kStateFolder = "menv";
inline constexpr const char* kIgnoreFile = ".gitignore";  // of that folder

struct Project {
  std::string directory;  // resolved
  std::string file;       // the Sandboxfile's path
  std::string shown;      // the same as the user would write it
  std::string text;       // its content
  Sandboxfile content;

  // Nothing when there is no such sandbox.
  [[nodiscard]] const Sandboxfile::Entry* find(std::string_view name) const;
  // Fails with the nearest name when there is none.
  [[nodiscard]] Result<const Sandboxfile::Entry*> get(std::string_view name) const;
  [[nodiscard]] Identity identity(const std::string& name) const;
  [[nodiscard]] std::string state_folder() const;
  // Of the 0.2 line, which is not read.
  [[nodiscard]] bool has_old_state() const;
};

// Where a Sandboxfile is. `given`: a directory or the file itself; empty: the working directory, or
// the nearest one above it that has one, as long as those are this user's. Nothing when there is
// none, which for a given one is an error.
Result<std::optional<std::string>> find_sandboxfile(const std::string& given);

// Reads and parses it.
Result<Project> open_project(const std::string& file);

// Makes menv, which keeps itself out of version control.
Result<void> make_state_folder(const Project& project);

// The state directory of an installed sandbox.
std::string installed_state(const std::string& home, std::string_view alias);

}  // namespace msb::sandbox
