// SPDX-License-Identifier: Apache-2.0
// What a Sandboxfile reaches beyond its project, and what the user has agreed to of it. A project
// may come from anybody, and a sandbox may write into it: also symbolic links, and while they are
// looked at.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "sandbox/launch.hpp"
#include "sandbox/spec.hpp"

namespace msb::sandbox {

// What of `spec` is not of the directory `directory`, a sentence each, to be read behind the
// sandbox's name: "mounts /home/me/.ssh at /keys (read and write)", "publishes port 80 at
// 0.0.0.0:8080, which other machines can reach". Paths are those that symbolic links lead to. Fails
// when `directory`, or where one of them leads, cannot be told.
Result<std::vector<std::string>> beyond(const SandboxSpec& spec, const std::string& directory);

// The host's side of a volume, which is relative to `directory`: a directory or regular file, and
// the path that it really is at, so that what is judged is what the sandbox gets.
Result<OpenVolume> open_volume(const Volume& volume, const std::string& directory);

// The sentence of beyond() for what open_volume() found; nothing when it is in `directory`.
Result<std::optional<std::string>> beyond(const OpenVolume& volume, const std::string& directory);

// The same for the directory of this host that is its root, by its real path.
Result<std::optional<std::string>> beyond_root(const std::string& path,
                                               const std::string& directory);

// The same for a file of variables that was read, by its real path.
Result<std::optional<std::string>> beyond_variables(const std::string& path,
                                                    const std::string& directory);

// Where the file that `file` is open for is now. Fails when it has been removed.
Result<std::string> real_path(const Fd& file);

// What users agreed to, by project, in the file `path` ($MSB_HOME/consents.json).
class Consents {
 public:
  explicit Consents(std::string path) : path_(std::move(path)) {}

  // Those of `sentences` that were not yet agreed to for the project in `directory`, which is
  // resolved. Fails when the file is damaged, or another user's.
  [[nodiscard]] Result<std::vector<std::string>> missing(
      const std::string& directory, const std::vector<std::string>& sentences) const;
  [[nodiscard]] Result<bool> is_agreed(const std::string& directory,
                                       const std::vector<std::string>& sentences) const;
  // Remembers them, with what was agreed to before.
  Result<void> agree(const std::string& directory, const std::vector<std::string>& sentences) const;

 private:
  std::string path_;
};

// That of this user. Fails as home_directory() does.
Result<Consents> open_consents();

}  // namespace msb::sandbox
