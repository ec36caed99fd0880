// SPDX-License-Identifier: Apache-2.0
#include "cli/installing.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "base/home.hpp"
#include "base/nearest_word.hpp"
#include "cli/entering.hpp"
#include "cli/run.hpp"
#include "cli/text.hpp"
#include "oci/printable.hpp"
#include "sandbox/control_client.hpp"
#include "sandbox/files.hpp"
#include "sandbox/image_choice.hpp"
#include "sandbox/project.hpp"
#include "sandbox/runtime_directory.hpp"
#include "sandbox/spec_json.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::cli {

namespace {

namespace fs = std::filesystem;
using sandbox::Json;

// By which a script is known to be ours, as in the 0.2 line.
constexpr std::string_view kMarker = "# MSB-ALIAS: ";
constexpr std::size_t kMaxScript = 64 * 1024;

// An alias as it was installed.
struct Installed {
  sandbox::SandboxSpec spec;
  sandbox::Task task;
  bool temporary = false;
};

Result<std::string> script_directory() {
  for (const auto& [variable, rest] : {std::pair{"XDG_BIN_HOME", ""}, {"HOME", "/.local/bin"}}) {
    const char* value = std::getenv(variable);
    if (value != nullptr && value[0] == '/') {
      return std::string(value) + rest;
    }
  }
  return fail("there is no place for commands: set HOME");
}

Json describe(const Installed& installed) {
  return {{"spec", sandbox::to_json(installed.spec)},
          {"command", installed.task.command},
          {"no_entrypoint", installed.task.no_entrypoint},
          {"temporary", installed.temporary}};
}

Result<Installed> read(const std::string& state) {
  const std::string path = state + "/installed.json";
  const auto document = sandbox::read_json_file(path);
  if (!document) {
    return std::unexpected(document.error());
  }
  if (!*document) {
    return fail("'{}' is not there: `msb uninstall` and `msb install` make it anew", path);
  }
  const auto spec = sandbox::spec_from_json((*document)->value("spec", Json()));
  if (!spec) {
    return std::unexpected(spec.error().within(path));
  }
  Installed installed{*spec, {}, false};
  const auto flag = [&](const char* name) {
    const auto found = (*document)->find(name);
    return found != (*document)->end() && found->is_boolean() && found->get<bool>();
  };
  installed.task.no_entrypoint = flag("no_entrypoint");
  installed.temporary = flag("temporary");
  const Json command = (*document)->value("command", Json::array());
  for (const Json& word : command) {
    if (!word.is_string()) {
      return fail("'{}' is damaged: its command is no list of words", path);
    }
    installed.task.command.push_back(word.get<std::string>());
  }
  return installed;
}

// Paths of the words at hand, for whoever calls it from elsewhere.
Result<void> make_absolute(sandbox::SandboxSpec& spec) {
  std::error_code error;
  for (sandbox::Volume& volume : spec.volumes) {
    volume.host = fs::canonical(volume.host, error).string();
    if (error) {
      return fail_errno(error.value(), "cannot find the volume '{}'", oci::printable(volume.host));
    }
  }
  for (std::string& file : spec.env_files) {
    file = fs::absolute(file, error).string();
  }
  if (sandbox::is_local_image(spec.image)) {
    spec.image = fs::absolute(spec.image, error).lexically_normal().string();
  }
  return {};
}

// The script is found by its marker; any other file of that name is somebody else's.
Result<bool> is_our_script(const std::string& path) {
  const auto content = sandbox::read_file(path, kMaxScript);
  if (!content) {
    return std::unexpected(content.error());
  }
  return *content && (*content)->find(kMarker) != std::string::npos;
}

std::string quote_for_shell(const std::string& word) {
  std::string quoted = "'";
  for (const char c : word) {
    quoted += c == '\'' ? "'\\''" : std::string(1, c);
  }
  return quoted + "'";
}

bool on_path(const std::string& directory) {
  const char* path = std::getenv("PATH");
  return path != nullptr &&
         fmt::format(":{}:", path).find(fmt::format(":{}:", directory)) != std::string::npos;
}

Result<void> write_script(const std::string& path, const std::string& alias) {
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  if (error) {
    return fail_errno(error.value(), "cannot make the directory of '{}'", path);
  }
  const auto directory = sandbox::program_directory();
  if (!directory) {
    return std::unexpected(directory.error());
  }
  constexpr unsigned kExecutable = 0755;
  return sandbox::write_file(
      path,
      fmt::format("#!/bin/sh\n{}{}\nexec {} run --installed {} -- \"$@\"\n", kMarker, alias,
                  quote_for_shell(*directory + "/msb"), quote_for_shell(alias)),
      kExecutable);
}

// One that was left just now ends by itself a little later.
Result<std::optional<Fd>> lock_after_linger(const sandbox::StateDirectory& state) {
  constexpr std::chrono::seconds kLinger{6};
  auto lock = state.lock();
  const auto all = sandbox::list_running();
  if (!lock || *lock || !all) {
    return lock;
  }
  for (const sandbox::Running& one : *all) {
    const auto client = one.who.state == state.path()
                            ? sandbox::ControlClient::connect(one.control_socket())
                            : Result<sandbox::ControlClient>(std::unexpected(Error{}));
    const auto supervisor =
        client ? client->supervisor() : Result<Fd>(std::unexpected(client.error()));
    if (supervisor && sandbox::wait_for_end(*supervisor, kLinger)) {
      return state.lock();
    }
  }
  return lock;
}

}  // namespace

Result<void> install(const InstallWords& words, const SpecWords& spec_words) {
  const std::size_t tilde = words.image.find('~');
  const std::string image = words.image.substr(0, tilde);
  const std::string script = tilde == std::string::npos ? "" : words.image.substr(tilde + 1);
  auto spec = make_spec(image, spec_words);
  if (!spec) {
    return std::unexpected(spec.error());
  }
  const std::string alias = words.alias.empty() ? sandbox::short_name(image) : words.alias;
  if (auto checked = sandbox::check_name(alias); !checked) {
    return fail("{}; name the command: `msb install {} ALIAS`", checked.error().message,
                oci::printable(words.image));
  }
  auto task = sandbox::choose_task(*spec, {words.exec, script, words.arguments}, false);
  if (!task) {
    return std::unexpected(task.error());
  }
  if (auto absolute = make_absolute(*spec); !absolute) {
    return absolute;
  }
  const auto home = home_directory();
  const auto directory = script_directory();
  if (!home || !directory) {
    return std::unexpected(home ? directory.error() : home.error());
  }
  const sandbox::StateDirectory state(sandbox::installed_state(*home, alias));
  const std::string path = fmt::format("{}/{}", *directory, alias);
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0) {
    return fail(
        "'{}' exists already; name another alias, or remove that one with `msb uninstall {}`", path,
        alias);
  }
  if (state.exists()) {
    return fail("'{0}' is installed already; `msb uninstall {0}` removes it", alias);
  }
  // Now, rather than when it is first called from somewhere.
  if (auto present = ensure_image(spec->image, "/"); !present) {
    return present;
  }
  if (auto made = state.make(); !made) {
    return made;
  }
  auto written = sandbox::write_json_file(state.file("installed.json"),
                                          describe({*spec, *task, words.temporary}));
  if (written) {
    written = write_script(path, alias);
  }
  if (!written) {
    [[maybe_unused]] const auto removed = sandbox::remove_tree(state.path());
    return written;
  }
  return print(fmt::format(
      "Installed {} as {}{}\n", image, path,
      on_path(*directory)
          ? fmt::format("; type `{}` in any directory", alias)
          : fmt::format("; put {} on your PATH to type `{}` anywhere", *directory, alias)));
}

Result<void> uninstall(const std::string& alias) {
  if (auto checked = sandbox::check_name(alias); !checked) {
    return checked;
  }
  const auto home = home_directory();
  const auto directory = script_directory();
  if (!home || !directory) {
    return std::unexpected(home ? directory.error() : home.error());
  }
  const sandbox::StateDirectory state(sandbox::installed_state(*home, alias));
  const std::string path = fmt::format("{}/{}", *directory, alias);
  const auto ours = is_our_script(path);
  if (!ours) {
    return std::unexpected(ours.error());
  }
  if (!state.exists() && !*ours) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) == 0) {
      return fail("'{}' was not made by `msb install`, and stays", path);
    }
    std::vector<std::string> names;
    std::error_code error;
    for (auto entry = fs::directory_iterator(*home + "/installed", error);
         !error && entry != fs::directory_iterator(); entry.increment(error)) {
      names.push_back(entry->path().filename().string());
    }
    return fail("'{}' is not installed{}", alias, did_you_mean(alias, names));
  }
  if (state.exists()) {
    const auto lock = lock_after_linger(state);
    if (!lock) {
      return std::unexpected(lock.error());
    }
    if (!*lock) {
      return fail("'{0}' is running; leave it, or end it with `msb stop {0}`, first", alias);
    }
    if (auto removed = sandbox::remove_tree(state.path()); !removed) {
      return removed;
    }
  }
  if (*ours && ::unlink(path.c_str()) != 0) {
    return fail_errno(errno, "cannot remove '{}'", path);
  }
  return print(fmt::format("Uninstalled {}\n", alias));
}

Result<void> list_installed(Format format) {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  Json documents = Json::array();
  std::vector<std::vector<std::string>> rows = {{"ALIAS", "IMAGE", "KEEPS"}};
  std::vector<std::string> names;
  std::error_code error;
  for (auto entry = fs::directory_iterator(*home + "/installed", error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  std::ranges::sort(names);
  for (const std::string& name : names) {
    const auto installed = read(sandbox::installed_state(*home, name));
    if (!installed) {
      complain(installed.error().message);
      continue;
    }
    rows.push_back({name, installed->spec.image, installed->temporary ? "nothing" : "its state"});
    documents.push_back({{"alias", name},
                         {"temporary", installed->temporary},
                         {"spec", sandbox::to_json(installed->spec)}});
  }
  return format == Format::kJson ? print_json(documents) : print(format_table(rows));
}

Result<sandbox::SandboxSpec> read_installed(const std::string& state) {
  auto installed = read(state);
  return installed ? Result<sandbox::SandboxSpec>(std::move(installed->spec))
                   : std::unexpected(installed.error());
}

Begin installed_begin(const sandbox::Identity& who, const sandbox::SandboxSpec& spec) {
  Begin begin_words;
  begin_words.who = who;
  begin_words.spec = spec;
  begin_words.directory = "/";
  return begin_words;
}

Result<int> run_installed(const std::string& alias, const std::vector<std::string>& arguments,
                          bool debug) {
  if (auto checked = sandbox::check_name(alias); !checked) {
    return std::unexpected(checked.error());
  }
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  const std::string state = sandbox::installed_state(*home, alias);
  if (!sandbox::StateDirectory(state).exists()) {
    return fail("'{}' is not installed any more", alias);
  }
  const auto installed = read(state);
  if (!installed) {
    return std::unexpected(installed.error());
  }
  sandbox::Task task = installed->task;
  task.command.insert(task.command.end(), arguments.begin(), arguments.end());
  Begin begin_words =
      installed_begin({installed->temporary ? sandbox::Kind::kTemporary : sandbox::Kind::kInstalled,
                       alias, "", installed->temporary ? "" : state},
                      installed->spec);
  begin_words.debug = debug;
  if (installed->temporary) {
    begin_words.task = std::move(task);
    begin_words.terminal = at_terminal();
    auto launched = begin(begin_words);
    return launched ? accompany(*launched) : std::unexpected(launched.error());
  }
  ExecWords exec;
  exec.command = std::move(task.command);
  exec.image_command = !task.no_entrypoint;
  return enter(std::move(begin_words), exec);
}

}  // namespace msb::cli
