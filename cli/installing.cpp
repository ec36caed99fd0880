// SPDX-License-Identifier: Apache-2.0
#include "cli/installing.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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
constexpr const char* kInstalled = "installed.json";

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
  const std::string path = fmt::format("{}/{}", state, kInstalled);
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

bool is_installed(const sandbox::StateDirectory& state) {
  return ::access(state.file(kInstalled).c_str(), F_OK) == 0;
}

// Paths of the words at hand, for whoever calls it from elsewhere.
Result<void> make_absolute(sandbox::SandboxSpec& spec) {
  std::error_code error;
  for (sandbox::Volume& volume : spec.volumes) {
    fs::path real = fs::canonical(volume.host, error);
    if (error) {
      return fail_errno(error.value(), "cannot find the volume '{}'", oci::printable(volume.host));
    }
    volume.host = std::move(real).string();
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

bool on_path(const std::string& directory) {
  const char* path = std::getenv("PATH");
  return path != nullptr &&
         fmt::format(":{}:", path).find(fmt::format(":{}:", directory)) != std::string::npos;
}

// It finds its state wherever the caller's images are.
Result<void> write_script(const std::string& path, const std::string& alias,
                          const std::string& home) {
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
      fmt::format("#!/bin/sh\n{}{}\nMSB_HOME={} exec {} run --installed {} -- \"$@\"\n", kMarker,
                  alias, quote_for_shell(home), quote_for_shell(*directory + "/msb"),
                  quote_for_shell(alias)),
      kExecutable);
}

// What is installed, in order.
std::vector<std::string> installed_aliases(const std::string& home) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto entry = fs::directory_iterator(home + "/installed", error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (std::string name = entry->path().filename().string(); sandbox::check_name(name)) {
      names.push_back(std::move(name));
    }
  }
  std::ranges::sort(names);
  return names;
}

// Where aliases are.
struct Places {
  std::string home;
  std::string scripts;

  [[nodiscard]] sandbox::StateDirectory state(const std::string& alias) const {
    return sandbox::StateDirectory(sandbox::installed_state(home, alias));
  }
  [[nodiscard]] std::string script(const std::string& alias) const {
    return fmt::format("{}/{}", scripts, alias);
  }
};

Result<Places> find_places() {
  auto home = home_directory();
  auto scripts = script_directory();
  if (!home || !scripts) {
    return std::unexpected(home ? scripts.error() : home.error());
  }
  return Places{std::move(*home), std::move(*scripts)};
}

// False when it runs. One that was left just now ends by itself a little later.
Result<bool> remove_after_linger(const sandbox::StateDirectory& state) {
  constexpr std::chrono::seconds kLinger{6};
  auto removed = state.remove();
  const auto all = sandbox::list_running();
  if (!removed || *removed || !all) {
    return removed ? Result<bool>(removed->has_value()) : std::unexpected(removed.error());
  }
  for (const sandbox::Running& one : *all) {
    const auto client = one.who.state == state.path()
                            ? sandbox::ControlClient::connect(one.control_socket())
                            : Result<sandbox::ControlClient>(std::unexpected(Error{}));
    const auto supervisor =
        client ? client->supervisor() : Result<Fd>(std::unexpected(client.error()));
    if (supervisor && sandbox::wait_for_end(*supervisor, kLinger)) {
      removed = state.remove();
      return removed ? Result<bool>(removed->has_value()) : std::unexpected(removed.error());
    }
  }
  return false;
}

Result<void> remove_alias(const Places& places, const std::string& alias) {
  const std::string path = places.script(alias);
  const auto ours = is_our_script(path);
  if (!ours) {
    return std::unexpected(ours.error());
  }
  const sandbox::StateDirectory state = places.state(alias);
  if (!state.exists() && !*ours) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) == 0) {
      return fail("'{}' was not made by `msb install`, and stays", path);
    }
    return fail("'{}' is not installed{}", alias,
                did_you_mean(alias, installed_aliases(places.home)));
  }
  if (state.exists()) {
    const auto removed = remove_after_linger(state);
    if (!removed) {
      return std::unexpected(removed.error());
    }
    if (!*removed) {
      return fail("'{0}' is running; leave it, or end it with `msb stop {0}`, first", alias);
    }
  }
  if (*ours && ::unlink(path.c_str()) != 0) {
    return fail_errno(errno, "cannot remove '{}'", path);
  }
  return {};
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
  const auto places = find_places();
  if (!places) {
    return std::unexpected(places.error());
  }
  const sandbox::StateDirectory state = places->state(alias);
  const std::string path = places->script(alias);
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0) {
    return fail(
        "'{}' exists already; name another alias, or remove that one with `msb uninstall {}`", path,
        alias);
  }
  if (is_installed(state)) {
    return fail("'{0}' is installed already; `msb uninstall {0}` removes it", alias);
  }
  // Now, rather than when it is first called from somewhere.
  if (auto present = ensure_image(spec->image, "/"); !present) {
    return present;
  }
  // Of two who install it now one finds the lock taken, or the work done.
  auto locked = state.lock();
  if (!locked) {
    return std::unexpected(locked.error());
  }
  if (!*locked || is_installed(state)) {
    return fail("'{0}' is being installed, or installed already; `msb uninstall {0}` removes it",
                alias);
  }
  // Looked at again: what takes minutes is done.
  auto written = ::lstat(path.c_str(), &status) == 0
                     ? fail("'{}' exists already; name another alias", path)
                     : write_script(path, alias, places->home);
  if (written) {
    written = sandbox::write_json_file((*locked)->state.file(kInstalled),
                                       describe({*spec, *task, words.temporary}));
    if (!written) {
      ::unlink(path.c_str());
    }
  }
  if (!written) {
    [[maybe_unused]] const auto removed = (*locked)->remove();
    return written;
  }
  return print(fmt::format(
      "Installed {} as {}{}\n", image, path,
      on_path(places->scripts)
          ? fmt::format("; type `{}` in any directory", alias)
          : fmt::format("; put {} on your PATH to type `{}` anywhere", places->scripts, alias)));
}

Result<void> uninstall(const std::string& alias) {
  if (auto checked = sandbox::check_name(alias); !checked) {
    return checked;
  }
  const auto places = find_places();
  if (!places) {
    return std::unexpected(places.error());
  }
  const auto removed = remove_alias(*places, alias);
  return removed ? print(fmt::format("Uninstalled {}\n", alias)) : removed;
}

Result<void> uninstall_all() {
  const auto places = find_places();
  if (!places) {
    return std::unexpected(places.error());
  }
  for (const std::string& alias : installed_aliases(places->home)) {
    if (auto removed = remove_alias(*places, alias); !removed) {
      return removed;
    }
  }
  return {};
}

Result<void> list_installed(Format format) {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  Json documents = Json::array();
  std::vector<std::vector<std::string>> rows = {{"ALIAS", "IMAGE", "KEEPS"}};
  for (const std::string& name : installed_aliases(*home)) {
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
    return fail("'{0}' is not installed any more; `msb install IMAGE {0}` makes it anew", alias);
  }
  const auto installed = read(state);
  if (!installed) {
    return std::unexpected(installed.error());
  }
  sandbox::Task task = installed->task;
  task.extend = task.command.empty() && !task.no_entrypoint;
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
  exec.entrypoint = !task.no_entrypoint;
  exec.extend = task.extend;
  return enter(std::move(begin_words), exec);
}

}  // namespace msb::cli
