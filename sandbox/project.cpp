// SPDX-License-Identifier: Apache-2.0
#include "sandbox/project.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "base/nearest_word.hpp"
#include "oci/printable.hpp"
#include "sandbox/files.hpp"

namespace msb::sandbox {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxText = 1024 * 1024;

bool is_ours(const fs::path& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && status.st_uid == ::geteuid();
}

// "Sandboxfile" rather than "/home/me/project/Sandboxfile" in it.
std::string shorten(const fs::path& path) {
  std::error_code error;
  const fs::path here = fs::current_path(error);
  const fs::path shorter = error ? path : path.lexically_relative(here);
  return shorter.empty() || shorter.string().size() > path.string().size() ? path.string()
                                                                           : shorter.string();
}

}  // namespace

const Sandboxfile::Entry* Project::find(std::string_view name) const {
  const auto found = std::ranges::find(content.sandboxes, name, &Sandboxfile::Entry::name);
  return found == content.sandboxes.end() ? nullptr : &*found;
}

Result<const Sandboxfile::Entry*> Project::get(std::string_view name) const {
  if (const Sandboxfile::Entry* entry = find(name)) {
    return entry;
  }
  std::vector<std::string> names;
  for (const Sandboxfile::Entry& entry : content.sandboxes) {
    names.push_back(entry.name);
  }
  const std::string nearest = did_you_mean(name, names);
  return fail("there is no sandbox '{}' in {}{}", oci::printable(name), shown,
              nearest.empty() ? "; `msb list` shows those there are" : nearest);
}

Identity Project::identity(const std::string& name) const {
  return {Kind::kProject, name, directory, fmt::format("{}/{}", state_folder(), name)};
}

std::string Project::state_folder() const {
  return fmt::format("{}/{}", directory, kStateFolder);
}

bool Project::has_old_state() const {
  std::error_code error;
  return fs::is_directory(directory + "/.menv", error);
}

Result<std::optional<std::string>> find_sandboxfile(const std::string& given) {
  std::error_code error;
  if (!given.empty()) {
    const fs::path path =
        fs::is_directory(given, error) ? fs::path(given) / kSandboxfile : fs::path(given);
    if (!fs::exists(path, error)) {
      return fail("there is no Sandboxfile at '{}'; `msb init` makes one",
                  oci::printable(path.string()));
    }
    return path.string();
  }
  const fs::path here = fs::current_path(error);
  if (error) {
    return fail_errno(error.value(), "cannot tell the working directory");
  }
  for (fs::path at = here;; at = at.parent_path()) {
    const fs::path path = at / kSandboxfile;
    // A stranger's, in /tmp for example, is not meant by who works below it.
    if (fs::is_regular_file(path, error) && (at == here || (is_ours(at) && is_ours(path)))) {
      return path.string();
    }
    if (at == at.parent_path()) {
      return std::nullopt;
    }
  }
}

Result<Project> open_project(const std::string& file) {
  std::error_code error;
  Project project;
  const fs::path directory = fs::path(file).has_parent_path() ? fs::path(file).parent_path() : ".";
  project.directory = fs::canonical(directory, error).string();
  if (error) {
    return fail_errno(error.value(), "cannot find the directory of '{}'", oci::printable(file));
  }
  project.file = fmt::format("{}/{}", project.directory, fs::path(file).filename().string());
  project.shown = shorten(fs::absolute(file, error));
  auto text = read_file(project.file, kMaxText);
  if (!text) {
    return std::unexpected(text.error());
  }
  if (!*text) {
    return fail("there is no Sandboxfile at '{}'; `msb init` makes one", project.shown);
  }
  project.text = std::move(**text);
  auto content = parse_sandboxfile(project.text, project.shown);
  if (!content) {
    return std::unexpected(content.error());
  }
  project.content = std::move(*content);
  return project;
}

Result<void> make_state_folder(const Project& project) {
  const auto folder = make_directory(project.state_folder());
  if (!folder) {
    return std::unexpected(folder.error());
  }
  // By the descriptor: a sandbox that has the project may put a link in the folder's place.
  const std::string ignore = fmt::format("/proc/self/fd/{}/{}", folder->get(), kIgnoreFile);
  const auto present = read_file(ignore, kMaxText);
  if (!present) {
    return std::unexpected(present.error());
  }
  return *present ? Result<void>() : write_file(ignore, "*\n", 0644);
}

std::string installed_state(const std::string& home, std::string_view alias) {
  return fmt::format("{}/installed/{}", home, alias);
}

}  // namespace msb::sandbox
