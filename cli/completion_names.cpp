// SPDX-License-Identifier: Apache-2.0
// The names that completion offers.
#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>

#include "base/home.hpp"
#include "cli/completion.hpp"
#include "cli/context.hpp"
#include "cli/installing.hpp"
#include "cli/target.hpp"
#include "oci/reference.hpp"
#include "sandbox/project.hpp"

namespace msb::cli {

namespace {

using Names = std::vector<std::string>;

void add_project_names(Names& names, const Targets& targets) {
  if (targets.project()) {
    for (const auto& entry : targets.project()->content.sandboxes) {
      names.push_back(entry.name);
    }
  }
}

void add_installed_names(Names& names, const std::string& home) {
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(home + "/installed", error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    std::string name = entry->path().filename();
    if (sandbox::check_name(name)) {
      names.push_back(std::move(name));
    }
  }
}

Names scripts_of(const Targets& targets, const std::string& name) {
  Names names;
  const auto* entry = targets.project() ? targets.project()->find(name) : nullptr;
  if (entry != nullptr) {
    for (const auto& [script, body] : entry->spec.scripts) {
      names.push_back(script);
    }
  }
  return names;
}

Names image_names() {
  Names names;
  // Asking must not make a store.
  const auto home = home_directory();
  std::error_code error;
  if (!home || !std::filesystem::exists(*home + "/images.db", error)) {
    return names;
  }
  auto context = Context::open();
  if (!context) {
    return names;
  }
  const auto entries = context->store.list();
  if (!entries) {
    return names;
  }
  for (const auto& entry : *entries) {
    if (const auto reference = oci::parse_reference(entry.reference)) {
      names.push_back(reference->familiar());
    }
  }
  return names;
}

}  // namespace

std::vector<std::string> known_names(NameSet set, const std::string& file,
                                     const std::string& sandbox) {
  if (set == NameSet::kImages) {
    return image_names();
  }
  const auto targets = Targets::look(file);
  Names names;
  if (!targets) {
    return names;
  }
  if (set == NameSet::kScripts) {
    return scripts_of(*targets, sandbox);
  }
  if (set == NameSet::kAll || set == NameSet::kProject) {
    add_project_names(names, *targets);
  }
  if (set == NameSet::kAll || set == NameSet::kInstalled) {
    add_installed_names(names, targets->home());
  }
  if (set == NameSet::kAll || set == NameSet::kRunning) {
    for (const auto& running : targets->all()) {
      names.push_back(running.who.name);
    }
  }
  return names;
}

}  // namespace msb::cli
