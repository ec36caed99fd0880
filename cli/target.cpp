// SPDX-License-Identifier: Apache-2.0
#include "cli/target.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>

#include "base/home.hpp"
#include "base/nearest_word.hpp"
#include "cli/context.hpp"
#include "oci/printable.hpp"

namespace msb::cli {

namespace {

constexpr std::size_t kMinDigits = 4;
// A supervisor serves its control socket from its start on, and closes it just before its end.
constexpr std::chrono::seconds kPatience{20};

std::vector<std::string> installed_names(const std::string& home) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(home + "/installed", error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  return names;
}

}  // namespace

Result<Targets> Targets::look(const std::string& file) {
  Targets targets;
  auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  targets.home_ = std::move(*home);
  const auto found = sandbox::find_sandboxfile(file);
  if (!found) {
    return std::unexpected(found.error());
  }
  if (*found) {
    auto project = sandbox::open_project(**found);
    if (project) {
      targets.project_ = std::move(*project);
    } else if (!file.empty()) {
      return std::unexpected(project.error());
    } else {
      targets.project_error_ = project.error();
    }
  }
  auto running = sandbox::list_running();
  if (!running) {
    return std::unexpected(running.error());
  }
  targets.running_ = std::move(*running);
  return targets;
}

std::optional<sandbox::Running> Targets::running(const sandbox::Identity& who) const {
  const auto found = std::ranges::find_if(running_, [&](const sandbox::Running& one) {
    return !who.state.empty() && one.who.state == who.state;
  });
  return found == running_.end() ? std::nullopt : std::optional(*found);
}

bool Targets::can_start(const sandbox::Identity& who) const {
  return who.kind == sandbox::Kind::kInstalled ||
         (who.kind == sandbox::Kind::kProject && project_ && project_->directory == who.project);
}

Result<Target> Targets::find(const std::string& name) const {
  if (project_ && project_->find(name) != nullptr) {
    const sandbox::Identity who = project_->identity(name);
    return Target{who, running(who)};
  }
  if (sandbox::check_name(name)) {
    const std::string state = sandbox::installed_state(home_, name);
    if (sandbox::StateDirectory(state).exists()) {
      const sandbox::Identity who{sandbox::Kind::kInstalled, name, "", state};
      return Target{who, running(who)};
    }
  }
  std::vector<const sandbox::Running*> matching;
  for (const sandbox::Running& one : running_) {
    if (one.who.name == name || (name.size() >= kMinDigits && one.id.starts_with(name))) {
      matching.push_back(&one);
    }
  }
  if (matching.size() == 1) {
    return Target{matching.front()->who, *matching.front()};
  }
  if (matching.size() > 1) {
    return fail("'{}' means {} sandboxes that run; say one of them by its id, which `msb ps` shows",
                name, matching.size());
  }
  if (project_error_) {
    return std::unexpected(*project_error_);
  }
  const std::string nearest = did_you_mean(name, names());
  return fail("there is no sandbox '{}'{}", oci::printable(name),
              nearest.empty() ? "; `msb ps` shows those that run" : nearest);
}

Result<Target> Targets::find_running(const std::string& name) const {
  auto target = find(name);
  if (target && !target->running) {
    return fail("'{}' is not running; {}", name,
                target->who.kind == sandbox::Kind::kProject
                    ? fmt::format("`msb up {}` starts it", name)
                    : fmt::format("`{}` starts it", name));
  }
  return target;
}

std::vector<std::string> Targets::names() const {
  std::vector<std::string> names = installed_names(home_);
  if (project_) {
    for (const auto& entry : project_->content.sandboxes) {
      names.push_back(entry.name);
    }
  }
  for (const sandbox::Running& one : running_) {
    names.push_back(one.who.name);
  }
  return names;
}

Result<sandbox::Project> open_project(const std::string& file) {
  const auto found = sandbox::find_sandboxfile(file);
  if (!found) {
    return std::unexpected(found.error());
  }
  if (!*found) {
    return fail("there is no Sandboxfile here or in a directory above; `msb init` makes one");
  }
  auto project = sandbox::open_project(**found);
  if (project && project->has_old_state() &&
      !sandbox::StateDirectory(project->state_folder()).exists()) {
    complain(
        "the .menv here is of microsandbox 0.2, and is not used: what it keeps are overlays of "
        "directories, and this version keeps disks, in menv");
  }
  return project;
}

std::string describe(const sandbox::Identity& who, const std::optional<sandbox::Project>& at_hand) {
  if (who.kind == sandbox::Kind::kProject && (!at_hand || at_hand->directory != who.project)) {
    return fmt::format("{} (in {})", who.name, who.project);
  }
  return who.name;
}

Result<sandbox::ControlClient> control(const sandbox::Running& running) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    auto client = sandbox::ControlClient::connect(running.control_socket());
    if (client) {
      return client;
    }
    if (!sandbox::is_alive(running)) {
      return std::unexpected(Error{fmt::format("'{}' has just ended", running.who.name), ESRCH});
    }
    if (std::chrono::steady_clock::now() > deadline) {
      return fail("'{}' is still starting, or does not come to its end ({})", running.who.name,
                  client.error().message);
    }
    // Of another process's progress nothing tells us but its files.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace msb::cli
