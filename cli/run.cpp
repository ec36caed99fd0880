// SPDX-License-Identifier: Apache-2.0
#include "cli/run.hpp"

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <utility>

#include "cli/context.hpp"
#include "cli/entering.hpp"
#include "cli/installing.hpp"
#include "cli/starting.hpp"
#include "cli/target.hpp"
#include "cli/up.hpp"
#include "sandbox/image_choice.hpp"
#include "sandbox/launch.hpp"

namespace msb::cli {

namespace {

// NAME~SCRIPT
struct NameAndScript {
  std::string name;
  std::string script;
};

NameAndScript split(const std::string& text) {
  const std::size_t at = text.find('~');
  return at == std::string::npos ? NameAndScript{text, ""}
                                 : NameAndScript{text.substr(0, at), text.substr(at + 1)};
}

// A name for a temporary sandbox: its image's, and digits.
std::string make_name(const std::string& image) {
  std::string base = sandbox::short_name(image);
  std::erase_if(base, [](char c) {
    return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-';
  });
  base.erase(0, std::min(base.find_first_not_of('-'), base.size()));
  constexpr std::size_t kMaxBase = 40;
  std::uint16_t digits = 0;
  while (::getrandom(&digits, sizeof digits, 0) != static_cast<ssize_t>(sizeof digits)) {
  }
  return fmt::format("{}-{:04x}", base.empty() ? "sandbox" : base.substr(0, kMaxBase), digits);
}

std::string here() {
  std::error_code error;
  return std::filesystem::current_path(error).string();
}

// Starts, and stays with it unless it is to be left alone.
Result<int> start(const Begin& begin_words) {
  auto launched = begin(begin_words);
  if (!launched) {
    return std::unexpected(launched.error());
  }
  if (!begin_words.background) {
    return accompany(*launched);
  }
  if (auto runs = await_running(*launched); !runs) {
    return std::unexpected(runs.error());
  }
  const auto printed = print(fmt::format("{}\n", launched->running().who.name));
  return printed ? Result<int>(0) : std::unexpected(printed.error());
}

// What it depends on runs first.
Result<Begin> begin_with_dependencies(const sandbox::Project& project,
                                      const sandbox::Sandboxfile::Entry& entry,
                                      const RunWords& words) {
  const UpWords up{words.file, {entry.name}, words.yes, words.debug};
  if (auto brought = bring_up(project, up, entry.name); !brought) {
    return std::unexpected(brought.error());
  }
  return begin_of(project, entry, up);
}

// What a sandbox was declared to be; of a temporary one nothing is left to ask.
Result<sandbox::SandboxSpec> spec_of(const Targets& targets, const sandbox::Identity& who) {
  if (who.kind == sandbox::Kind::kInstalled) {
    return read_installed(who.state);
  }
  if (who.kind == sandbox::Kind::kProject && targets.project() &&
      targets.project()->directory == who.project) {
    const auto entry = targets.project()->get(who.name);
    return entry ? Result<sandbox::SandboxSpec>((*entry)->spec) : std::unexpected(entry.error());
  }
  return sandbox::SandboxSpec{};
}

}  // namespace

Result<int> exe(const RunWords& words, const SpecWords& spec_words) {
  const auto [image, script] = split(words.name);
  auto spec = make_spec(image, spec_words);
  if (!spec) {
    return std::unexpected(spec.error());
  }
  auto task = sandbox::choose_task(*spec, {words.exec, script, words.arguments}, words.detach);
  if (!task) {
    return std::unexpected(task.error());
  }
  Begin begin_words;
  begin_words.who = {sandbox::Kind::kTemporary,
                     words.called.empty() ? make_name(image) : words.called, "", ""};
  if (auto checked = sandbox::check_name(begin_words.who.name); !checked) {
    return std::unexpected(checked.error());
  }
  begin_words.spec = std::move(*spec);
  begin_words.directory = here();
  begin_words.task = std::move(*task);
  begin_words.background = words.detach;
  begin_words.terminal = !words.no_terminal && at_terminal();
  begin_words.debug = words.debug;
  return start(begin_words);
}

Result<int> run(const RunWords& words) {
  const auto [name, script] = split(words.name);
  const auto project = open_project(words.file);
  if (!project) {
    return std::unexpected(project.error());
  }
  const auto entry = project->get(name);
  if (!entry) {
    return std::unexpected(entry.error());
  }
  auto task =
      sandbox::choose_task((*entry)->spec, {words.exec, script, words.arguments}, words.detach);
  if (!task) {
    return std::unexpected(task.error());
  }
  auto begin_words = begin_with_dependencies(*project, **entry, words);
  if (!begin_words) {
    return std::unexpected(begin_words.error());
  }
  begin_words->task = std::move(*task);
  begin_words->background = words.detach;
  begin_words->terminal = !words.no_terminal && at_terminal();
  auto status = start(*begin_words);
  if (!status && status.error().code == sandbox::kAlreadyRunning) {
    return fail(
        "'{0}' is running already: `msb shell {0}` or `msb exec {0}` enter it, and `msb attach "
        "{0}` shows what it does",
        name);
  }
  return status;
}

Result<int> shell(const RunWords& words) {
  if (words.detach) {
    RunWords apart = words;
    apart.name += "~shell";
    return run(apart);
  }
  const auto targets = Targets::look(words.file);
  if (!targets) {
    return std::unexpected(targets.error());
  }
  const auto target = targets->find(words.name);
  if (!target) {
    return std::unexpected(target.error());
  }
  const auto declared = spec_of(*targets, target->who);
  if (!declared) {
    return std::unexpected(declared.error());
  }
  ExecWords exec;
  exec.command = sandbox::shell_command(*declared);
  exec.command.insert(exec.command.end(), words.arguments.begin(), words.arguments.end());
  exec.no_terminal = words.no_terminal;
  if (target->running && target->running->who.purpose != sandbox::Purpose::kLookedAt) {
    auto status = enter_running(*target->running, exec);
    // Nobody was in it any more: it is started anew, if it is known how.
    if (status || status.error().code != ESRCH || !targets->can_start(target->who)) {
      return status;
    }
  }
  if (target->who.kind == sandbox::Kind::kInstalled) {
    return enter(installed_begin(target->who, *declared), exec);
  }
  const auto entry = targets->project()->get(words.name);
  auto begin_words = entry ? begin_with_dependencies(*targets->project(), **entry, words)
                           : Result<Begin>(std::unexpected(entry.error()));
  return begin_words ? enter(std::move(*begin_words), exec) : std::unexpected(begin_words.error());
}

}  // namespace msb::cli
