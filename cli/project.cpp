// SPDX-License-Identifier: Apache-2.0
#include "cli/project.hpp"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/home.hpp"
#include "cli/installing.hpp"
#include "cli/target.hpp"
#include "cli/text.hpp"
#include "oci/printable.hpp"
#include "oci/store/store_lock.hpp"
#include "sandbox/disk.hpp"
#include "sandbox/files.hpp"
#include "sandbox/project.hpp"
#include "sandbox/sandboxfile_edit.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::cli {

namespace {

namespace fs = std::filesystem;
using sandbox::Json;

constexpr std::string_view kEmpty = "# Sandbox configurations\nsandboxes:\n";
constexpr std::string_view kIgnored = "menv/";
constexpr std::size_t kMaxText = 1024 * 1024;

bool has_line(std::string_view text, std::string_view line) {
  return fmt::format("\n{}\n", text).find(fmt::format("\n{}\n", line)) != std::string::npos;
}

// Adds menv to a .gitignore that does not have it.
Result<void> ignore_state(const fs::path& directory) {
  const std::string path = directory / ".gitignore";
  const auto present = sandbox::read_file(path, kMaxText);
  if (!present) {
    return std::unexpected(present.error());
  }
  std::string text = present->value_or("");
  if (has_line(text, kIgnored) || has_line(text, "menv")) {
    return {};
  }
  text += text.empty() || text.ends_with('\n') ? "" : "\n";
  return sandbox::write_file(path, fmt::format("{}{}\n", text, kIgnored), 0644);
}

// Keeps the permissions that the file has.
Result<void> save(const sandbox::Project& project, const std::string& text) {
  struct stat status{};
  const bool known = ::stat(project.file.c_str(), &status) == 0;
  return sandbox::write_file(project.file, text, known ? status.st_mode & 0777 : 0644);
}

// Of two who change a Sandboxfile the second reads what the first has written. It is its directory
// that is locked, as the file is replaced. Where there is none yet, the next look says so.
Result<Fd> lock_sandboxfile(const std::string& file) {
  const auto found = sandbox::find_sandboxfile(file);
  if (!found) {
    return std::unexpected(found.error());
  }
  const fs::path parent = *found ? fs::path(**found).parent_path() : fs::path();
  const std::string path = parent.empty() ? "." : parent.string();
  Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  while (directory && ::flock(directory.get(), LOCK_EX) != 0) {
    if (errno != EINTR) {
      return fail_errno(errno, "cannot lock '{}'", oci::printable(path));
    }
  }
  return directory ? std::move(directory)
                   : Result<Fd>(fail_errno(errno, "cannot open '{}'", oci::printable(path)));
}

std::string state_word(const std::optional<sandbox::Running>& running,
                       const std::optional<sandbox::ExitRecord>& record) {
  if (running) {
    return "running";
  }
  if (!record) {
    return "never ran";
  }
  if (record->cause == "failed") {
    return "failed";
  }
  if (record->cause == "idle" || record->cause == "stopped") {
    return "stopped";
  }
  return fmt::format("{} ({})", record->cause == "exited" ? "ended" : oci::printable(record->cause),
                     record->status);
}

// Nothing is there of one that never ran.
Result<std::uint64_t> remove_state(const sandbox::StateDirectory& state, const std::string& name) {
  const auto removed = state.remove();
  if (!removed) {
    return std::unexpected(removed.error());
  }
  if (!*removed) {
    return fail("'{0}' is running; `msb down {0}` first", name);
  }
  return **removed;
}

Result<void> tell_cleaned(std::string_view what, std::uint64_t space) {
  return print(fmt::format("Removed what {} had kept ({})\n", what, format_size(space)));
}

// What is in the project's folder: states, and what nobody here has put there.
struct StateFolder {
  std::vector<sandbox::StateDirectory> states;
  std::vector<std::string> others;
};

StateFolder look_into(const sandbox::Project& project, const Fd& folder) {
  StateFolder found;
  std::error_code error;
  for (auto entry = fs::directory_iterator(fmt::format("/proc/self/fd/{}", folder.get()), error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const std::string path = fmt::format("{}/{}", project.state_folder(), name);
    if (sandbox::check_name(name) && entry->is_directory(error) && !entry->is_symlink(error)) {
      found.states.emplace_back(path);
    } else if (name != sandbox::kIgnoreFile && !sandbox::is_remainder(name)) {
      found.others.push_back(path);
    }
  }
  return found;
}

// Of all sandboxes in the project's folder, and the folder unless there is something else in it.
// When one runs, none is removed.
Result<std::uint64_t> remove_states(const sandbox::Project& project, const Fd& folder) {
  const StateFolder found = look_into(project, folder);
  for (const sandbox::StateDirectory& state : found.states) {
    const auto id = state.running_id();
    const std::string name = fs::path(state.path()).filename();
    if (!id || *id) {
      return id ? fail("'{}' is running; `msb down` first", name) : std::unexpected(id.error());
    }
  }
  std::uint64_t space = 0;
  for (const sandbox::StateDirectory& state : found.states) {
    const auto removed = remove_state(state, fs::path(state.path()).filename());
    if (!removed) {
      return removed;
    }
    space += *removed;
  }
  // One that is started meanwhile has its directory here again, and keeps it.
  const std::string path = project.state_folder();
  ::unlinkat(folder.get(), sandbox::kIgnoreFile, 0);
  sandbox::remove_remainders(folder);
  if (!found.others.empty()) {
    return fail("'{}' is not what a sandbox has kept, and stays", found.others.front());
  }
  if (::rmdir(path.c_str()) != 0 && errno != ENOTEMPTY && errno != ENOENT) {
    return fail_errno(errno, "cannot remove '{}'", path);
  }
  return space;
}

// Its folder alone where the Sandboxfile is gone, or cannot be read.
Result<sandbox::Project> project_to_clean(const std::string& file) {
  auto project = open_project(file);
  if (project) {
    return project;
  }
  const auto found = sandbox::find_sandboxfile(file);
  std::error_code error;
  sandbox::Project remains;
  remains.directory =
      fs::canonical(found && *found ? fs::path(**found).parent_path() : fs::path("."), error);
  remains.shown = remains.state_folder();
  const bool there = !error && sandbox::StateDirectory(remains.state_folder()).exists();
  return there ? Result<sandbox::Project>(std::move(remains)) : std::unexpected(project.error());
}

// What is below $MSB_HOME, and the commands that were installed.
Result<void> clean_home(bool force) {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  if (!force) {
    return fail("this removes all images and installed sandboxes in '{}': add --force", *home);
  }
  const auto running = sandbox::list_running();
  if (!running) {
    return std::unexpected(running.error());
  }
  if (!running->empty()) {
    return fail("'{}' is running; end what runs first (`msb ps`)", running->front().who.name);
  }
  const auto lock = oci::StoreLock::acquire(*home, oci::StoreLock::Kind::kExclusiveNow);
  if (!lock) {
    return fail("the images in '{}' are being used by another msb; try again when it is done",
                *home);
  }
  if (auto removed = uninstall_all(); !removed) {
    return removed;
  }
  for (const char* part : {"installed", "scratch", "layers", "blobs"}) {
    if (auto removed = sandbox::remove_tree(fmt::format("{}/{}", *home, part)); !removed) {
      return removed;
    }
  }
  for (const char* file : {"images.db", "images.db-wal", "images.db-shm", "consents.json"}) {
    std::error_code error;
    fs::remove(fmt::format("{}/{}", *home, file), error);
    if (error) {
      return fail_errno(error.value(), "cannot remove '{}/{}'", *home, file);
    }
  }
  return print(fmt::format("Removed what is in {}\n", *home));
}

// What single sandboxes have kept, also those that are no longer in the Sandboxfile.
Result<void> clean_named(const sandbox::Project& project, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (auto checked = sandbox::check_name(name); !checked) {
      return checked;
    }
    const sandbox::StateDirectory state(project.identity(name).state);
    if (!state.exists()) {
      if (const auto entry = project.get(name); !entry) {
        return std::unexpected(entry.error());
      }
    }
    const auto space = remove_state(state, name);
    if (!space) {
      return std::unexpected(space.error());
    }
    if (auto told = tell_cleaned(name, *space); !told) {
      return told;
    }
  }
  return {};
}

}  // namespace

Result<void> init(const std::string& where) {
  std::error_code error;
  const fs::path path = where.empty()                    ? fs::path(sandbox::kSandboxfile)
                        : fs::is_directory(where, error) ? fs::path(where) / sandbox::kSandboxfile
                                                         : fs::path(where);
  if (fs::exists(path, error)) {
    return fail("'{}' exists already; `msb add NAME --image IMAGE` adds a sandbox to it",
                oci::printable(path.string()));
  }
  if (auto written = sandbox::write_file(path, kEmpty, 0644); !written) {
    return written;
  }
  const fs::path directory = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (auto ignored = ignore_state(directory); !ignored) {
    return ignored;
  }
  return print(
      fmt::format("Made {}; `msb add NAME --image IMAGE` adds a sandbox\n", path.string()));
}

Result<void> add(const AddWords& words, const SpecWords& spec_words) {
  const auto lock = lock_sandboxfile(words.file);
  if (!lock) {
    return std::unexpected(lock.error());
  }
  const auto project = open_project(words.file);
  if (!project) {
    return std::unexpected(project.error());
  }
  auto spec = make_spec(words.image, spec_words);
  if (!spec) {
    return std::unexpected(spec.error());
  }
  spec->depends_on = words.depends_on;
  spec->command = words.command;
  for (const std::string& script : words.scripts) {
    const std::size_t equals = script.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return fail("--script \"{}\" is not NAME=COMMAND", oci::printable(script));
    }
    if (!spec->scripts.emplace(script.substr(0, equals), script.substr(equals + 1)).second) {
      return fail("there are two scripts '{}'", oci::printable(script.substr(0, equals)));
    }
  }
  if (!words.start.empty() && !spec->scripts.emplace("start", words.start).second) {
    return fail("there are two scripts 'start': --start and --script");
  }
  std::string text = project->text;
  for (const std::string& name : words.names) {
    auto added = sandbox::add_sandbox(text, name, *spec);
    if (!added) {
      return std::unexpected(added.error());
    }
    text = std::move(*added);
  }
  if (auto saved = save(*project, text); !saved) {
    return saved;
  }
  return print(fmt::format("Added {} to {}\n", fmt::join(words.names, ", "), project->shown));
}

Result<void> remove(const std::string& file, const std::vector<std::string>& names) {
  const auto lock = lock_sandboxfile(file);
  if (!lock) {
    return std::unexpected(lock.error());
  }
  const auto project = open_project(file);
  if (!project) {
    return std::unexpected(project.error());
  }
  for (const std::string& name : names) {
    if (const auto entry = project->get(name); !entry) {
      return std::unexpected(entry.error());
    }
  }
  const auto text = sandbox::remove_sandboxes(project->text, names);
  if (!text) {
    return std::unexpected(text.error());
  }
  if (auto saved = save(*project, *text); !saved) {
    return saved;
  }
  return print(fmt::format("Removed {} from {}; what it has kept stays until `msb clean {}`\n",
                           fmt::join(names, ", "), project->shown, fmt::join(names, " ")));
}

Result<void> list(const std::string& file, Format format) {
  const auto project = open_project(file);
  if (!project) {
    return std::unexpected(project.error());
  }
  Json documents = Json::array();
  std::string lines;
  for (const auto& entry : project->content.sandboxes) {
    lines += entry.name + "\n";
    documents.push_back({{"name", entry.name},
                         {"image", entry.spec.image},
                         {"depends_on", entry.spec.depends_on},
                         {"ports", entry.spec.ports}});
  }
  return format == Format::kJson ? print_json(documents) : print(lines);
}

Result<void> status(const std::string& file, const std::vector<std::string>& names, Format format) {
  const auto project = open_project(file);
  const auto targets = project ? Targets::look(project->file) : std::unexpected(project.error());
  if (!targets) {
    return std::unexpected(targets.error());
  }
  for (const std::string& name : names) {
    if (const auto entry = project->get(name); !entry) {
      return std::unexpected(entry.error());
    }
  }
  Json documents = Json::array();
  std::vector<std::vector<std::string>> rows = {{"NAME", "STATUS", "IMAGE", "DISK"}};
  std::string failures;
  for (const auto& entry : project->content.sandboxes) {
    if (!names.empty() && std::ranges::count(names, entry.name) == 0) {
      continue;
    }
    const sandbox::Identity who = project->identity(entry.name);
    const sandbox::StateDirectory state(who.state);
    const auto running = targets->running(who);
    const auto record = running ? std::nullopt : state.exit_record();
    if (!record) {
      return std::unexpected(record.error());
    }
    const std::uint64_t space = sandbox::space_of(state.disk());
    rows.push_back(
        {entry.name, state_word(running, *record), entry.spec.image, format_size(space)});
    Json document = {{"name", entry.name},
                     {"running", running.has_value()},
                     {"image", entry.spec.image},
                     {"disk_usage", space}};
    if (running) {
      document["id"] = running->id;
    }
    if (*record) {
      document["exit"] = {{"status", (*record)->status},
                          {"cause", (*record)->cause},
                          {"message", (*record)->message},
                          {"ended_ms", (*record)->ended_ms},
                          {"kernel", (*record)->kernel}};
    }
    if (*record && (*record)->cause == "failed") {
      failures += fmt::format("\n{} failed: {}\n", entry.name, oci::printable((*record)->message));
      for (const std::string& line : (*record)->kernel) {
        failures += fmt::format("  {}\n", oci::printable(line));
      }
    }
    documents.push_back(std::move(document));
  }
  return format == Format::kJson ? print_json(documents) : print(format_table(rows) + failures);
}

Result<void> clean(const CleanWords& words) {
  if (words.user || words.all) {
    if (auto cleaned = clean_home(words.force); !cleaned || !words.all) {
      return cleaned;
    }
  }
  const auto project = project_to_clean(words.file);
  if (!project) {
    return std::unexpected(project.error());
  }
  // What is reached through a link in its place is not the project's.
  const auto folder = sandbox::open_directory(project->state_folder());
  if (!folder) {
    return std::unexpected(folder.error());
  }
  if (!words.names.empty()) {
    return clean_named(*project, words.names);
  }
  if (!words.force) {
    return fail("this removes what all sandboxes of {} have kept: name one, or add --force",
                project->shown);
  }
  if (!*folder) {
    return tell_cleaned(project->shown, 0);
  }
  const auto space = remove_states(*project, **folder);
  return space ? tell_cleaned(project->shown, *space) : std::unexpected(space.error());
}

}  // namespace msb::cli
