// SPDX-License-Identifier: Apache-2.0
#include "cli/agreement.hpp"

#include <fmt/ranges.h>
#include <unistd.h>

#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "cli/context.hpp"
#include "sandbox/consent.hpp"

namespace msb::cli {

namespace {

// From the terminal, as what is typed into the sandbox comes later.
bool ask(const sandbox::Project& project, const std::string& name,
         const std::vector<std::string>& wants) {
  std::string text = fmt::format("{}: '{}' reaches beyond this project. It\n", project.shown, name);
  for (const std::string& want : wants) {
    text += fmt::format("  - {}\n", want);
  }
  write_error(text + "Let it? [y/N] ");
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

}  // namespace

Result<void> agree(const sandbox::Project& project, const sandbox::Sandboxfile::Entry& entry,
                   bool yes) {
  const auto wants = sandbox::beyond(entry.spec, project.directory);
  if (!wants) {
    return std::unexpected(wants.error().within(entry.name));
  }
  const auto consents = sandbox::open_consents();
  if (!consents) {
    return std::unexpected(consents.error());
  }
  const auto missing = consents->missing(project.directory, *wants);
  if (!missing) {
    return std::unexpected(missing.error());
  }
  if (missing->empty()) {
    return {};
  }
  const bool terminal = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDERR_FILENO) == 1;
  if (!yes && !terminal) {
    return fail("{}: '{}' reaches beyond its project: it {}; agree to it with --yes", project.shown,
                entry.name, fmt::join(*missing, ", and "));
  }
  if (!yes && !ask(project, entry.name, *missing)) {
    return fail("{}: '{}' was not started", project.shown, entry.name);
  }
  return consents->agree(project.directory, *missing);
}

Result<void> check_agreed(const sandbox::LaunchOptions& options) {
  const std::string& project = options.who.project;
  std::vector<Result<std::optional<std::string>>> wants;
  wants.reserve(options.volumes.size() + options.variable_files.size() + 1);
  for (const sandbox::OpenVolume& volume : options.volumes) {
    wants.push_back(sandbox::beyond(volume, project));
  }
  if (options.rootfs) {
    wants.push_back(sandbox::beyond_root(options.rootfs->path, project));
  }
  for (const std::string& file : options.variable_files) {
    wants.push_back(sandbox::beyond_variables(file, project));
  }
  const auto consents = sandbox::open_consents();
  if (!consents) {
    return std::unexpected(consents.error());
  }
  for (const auto& want : wants) {
    if (!want) {
      return std::unexpected(want.error());
    }
    if (!*want) {
      continue;
    }
    const auto agreed = consents->is_agreed(project, {**want});
    if (!agreed) {
      return std::unexpected(agreed.error());
    }
    if (!*agreed) {
      return fail("'{}' was changed while it was looked at: it {} now", options.who.name, **want);
    }
  }
  return {};
}

}  // namespace msb::cli
