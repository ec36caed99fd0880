// SPDX-License-Identifier: Apache-2.0
#include "sandbox/state_directory.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "sandbox/disk.hpp"
#include "sandbox/files.hpp"
#include "sandbox/locked_file.hpp"

namespace msb::sandbox {

namespace {

namespace fs = std::filesystem;

// Its presence without an exit record means that nobody was left to write one.
constexpr const char* kBegun = "begun.json";
constexpr std::size_t kMaxId = 32;
constexpr std::size_t kMaxKernelLines = 100;

constexpr const char* kLock = "lock";
constexpr int kAttempts = 10;
// Any of them shows that a directory is a sandbox's state.
constexpr std::array kProofs = {kLock, "sandbox.json", "installed.json"};
constexpr std::string_view kRemainder = ".removed-";

// An error about what is at `path` and was reached by `way`.
Error renamed(Error error, const std::string& way, const std::string& path) {
  for (std::size_t at = 0; (at = error.message.find(way, at)) != std::string::npos;) {
    error.message.replace(at, way.size(), path);
    at += path.size();
  }
  return error;
}

std::string way_to(const Fd& directory) {
  return fmt::format("/proc/self/fd/{}", directory.get());
}

std::string name_of(const std::string& path) {
  return fs::path(path).filename().string();
}

struct OpenState {
  Fd all;
  Fd directory;
};

// Through no link in the place of the directory, or of that with all states. Made when missing.
Result<OpenState> open_state(const std::string& path) {
  auto all = make_directory(fs::path(path).parent_path());
  if (!all) {
    return std::unexpected(all.error());
  }
  const std::string way = fmt::format("{}/{}", way_to(*all), name_of(path));
  auto directory = make_directory(way);
  if (!directory) {
    return std::unexpected(renamed(directory.error(), way, path));
  }
  return OpenState{std::move(*all), std::move(*directory)};
}

// Whether the name `name` in `all` is the directory.
bool is_at(const Fd& directory, const Fd& all, const std::string& name) {
  struct stat opened{};
  struct stat there{};
  return ::fstat(directory.get(), &opened) == 0 &&
         ::fstatat(all.get(), name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 &&
         opened.st_dev == there.st_dev && opened.st_ino == there.st_ino;
}

// What a process that was killed has not finished to write (write_file()). Only holders of the lock
// write.
void remove_drafts(const std::string& directory) {
  std::error_code error;
  for (auto entry = fs::directory_iterator(directory, error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (entry->path().extension() == ".new") {
      ::unlink(entry->path().c_str());
    }
  }
}

ExitRecord read_record(const Json& document) {
  ExitRecord record;
  record.status = static_cast<int>(number_member(document, "status").value_or(0));
  record.message = text_member(document, "message").value_or("");
  record.cause = text_member(document, "cause").value_or("");
  record.started_ms = number_member(document, "started_ms").value_or(0);
  record.ended_ms = number_member(document, "ended_ms").value_or(0);
  const auto lines = document.find("kernel");
  if (lines != document.end() && lines->is_array()) {
    for (const Json& line : *lines) {
      if (line.is_string() && record.kernel.size() < kMaxKernelLines) {
        record.kernel.push_back(line.get<std::string>());
      }
    }
  }
  return record;
}

}  // namespace

Result<void> StateDirectory::make() const {
  const auto made = open_state(path_);
  return made ? Result<void>() : std::unexpected(made.error());
}

bool StateDirectory::exists() const {
  struct stat status{};
  return ::lstat(path_.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

Result<std::optional<LockedState>> StateDirectory::lock() const {
  // Another process may remove it between the two steps, under its lock.
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    auto opened = open_state(path_);
    if (!opened) {
      return std::unexpected(opened.error());
    }
    StateDirectory state(way_to(opened->directory));
    LockedState locked{
        std::move(opened->all), std::move(opened->directory), std::move(state), {}, path_};
    auto lock = take_lock(locked.state.file(kLock));
    if (!lock && lock.error().code != ENOENT) {
      return std::unexpected(locked.said(lock.error()));
    }
    if (lock && !*lock) {
      return std::nullopt;
    }
    if (lock && is_at(locked.directory, locked.all, name_of(path_))) {
      locked.lock = std::move(**lock);
      if (::ftruncate(locked.lock.get(), 0) != 0) {  // the id of who had it last
        return fail_errno(errno, "cannot write '{}'", file(kLock));
      }
      remove_drafts(locked.state.path());
      remove_remainders(locked.all);
      return locked;
    }
  }
  return fail("'{}' is removed again and again while it is opened; try again", path_);
}

Result<std::optional<LockedState>> StateDirectory::lock_when_free(std::string_view ended) const {
  constexpr std::chrono::seconds kPatience{5};  // also for a supervisor to say its id
  constexpr std::chrono::milliseconds kInterval{5};
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    auto locked = lock();
    if (!locked || *locked || std::chrono::steady_clock::now() >= deadline) {
      return locked;
    }
    if (const auto id = running_id(); id && *id && !(*id)->empty() && **id != ended) {
      return std::nullopt;
    }
    std::this_thread::sleep_for(kInterval);
  }
}

Result<std::optional<std::uint64_t>> StateDirectory::remove() const {
  if (!exists()) {
    // What is left when it was removed before, by somebody who was interrupted.
    const auto all = open_directory(fs::path(path_).parent_path());
    if (all && *all) {
      remove_remainders(**all);
    }
    return 0;
  }
  const bool ours = std::ranges::any_of(kProofs, [this](const char* name) {
    struct stat status{};
    return ::lstat(file(name).c_str(), &status) == 0 && S_ISREG(status.st_mode);
  });
  if (!ours) {
    if (::rmdir(path_.c_str()) == 0) {
      return 0;
    }
    return fail("'{}' is not what a sandbox has kept, and stays", path_);
  }
  auto locked = lock();
  if (!locked) {
    return std::unexpected(locked.error());
  }
  if (!*locked) {
    return std::nullopt;
  }
  const auto space = (*locked)->remove();
  return space ? Result<std::optional<std::uint64_t>>(*space) : std::unexpected(space.error());
}

bool is_remainder(std::string_view name) {
  return name.starts_with(kRemainder);
}

void remove_remainders(const Fd& all) {
  std::error_code error;
  for (auto entry = fs::directory_iterator(way_to(all), error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const fs::path& path = entry->path();
    const bool remainder = is_remainder(path.filename().string());
    // Whoever is removing it holds its lock.
    const auto held = remainder ? is_locked(path / kLock) : Result<bool>(true);
    if (held && !*held) {
      [[maybe_unused]] const auto removed = remove_tree(path);  // else another time
    }
  }
}

Error LockedState::said(const Error& error) const {
  return renamed(error, state.path(), path);
}

Result<std::uint64_t> LockedState::remove() {
  const std::string name = name_of(path);
  const std::string aside = fmt::format("{}{}-{}", kRemainder, name, ::getpid());
  if (::renameat(all.get(), name.c_str(), all.get(), aside.c_str()) != 0) {
    return fail_errno(errno, "cannot remove '{}'", path);
  }
  if (!is_at(directory, all, aside)) {
    ::renameat(all.get(), aside.c_str(), all.get(), name.c_str());
    return fail("'{}' was replaced by something else while it was to be removed; try again", path);
  }
  const std::uint64_t space = space_of(state.disk());
  const std::string way = fmt::format("{}/{}", way_to(all), aside);
  auto removed = remove_tree(way);
  return removed ? Result<std::uint64_t>(space)
                 : std::unexpected(renamed(removed.error(), way, path));
}

Result<void> StateDirectory::say_id(const Fd& lock, std::string_view id) {
  if (::ftruncate(lock.get(), 0) != 0 ||
      ::pwrite(lock.get(), id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) {
    return fail_errno(errno, "cannot write the sandbox's lock file");
  }
  return {};
}

Result<std::optional<std::string>> StateDirectory::running_id() const {
  const auto held = is_locked(file(kLock));
  if (!held) {
    return std::unexpected(held.error());
  }
  if (!*held) {
    return std::nullopt;
  }
  auto id = read_file(file(kLock), kMaxId);
  if (!id) {
    return std::unexpected(id.error());
  }
  return id->value_or("");
}

Result<std::optional<PinnedImage>> StateDirectory::image() const {
  struct stat status{};
  if (::lstat(disk().c_str(), &status) != 0) {
    return std::nullopt;  // nothing lies on it
  }
  const auto document = read_json_file(file("sandbox.json"));
  if (!document) {
    return std::unexpected(document.error());
  }
  if (!*document) {
    return fail(
        "nothing says which image the disk '{}' lies on; remove it, or start afresh with `msb "
        "clean`",
        disk());
  }
  const auto reference = text_member(**document, "image");
  if (!reference) {
    return fail("'{}' is damaged: it names no image", file("sandbox.json"));
  }
  return PinnedImage{*reference, text_member(**document, "digest").value_or("")};
}

Result<void> StateDirectory::pin(const PinnedImage& image) const {
  return write_json_file(file("sandbox.json"),
                         {{"image", image.reference}, {"digest", image.digest}});
}

Result<std::optional<ExitRecord>> StateDirectory::exit_record() const {
  const auto held = is_locked(file(kLock));
  if (!held) {
    return std::unexpected(held.error());
  }
  if (*held) {
    return std::nullopt;
  }
  const auto document = read_json_file(record());
  if (!document) {
    return std::unexpected(document.error());
  }
  if (*document) {
    return read_record(**document);
  }
  const auto begun = read_json_file(file(kBegun));
  if (!begun) {
    return std::unexpected(begun.error());
  }
  if (!*begun) {
    return std::nullopt;
  }
  ExitRecord killed;
  constexpr int kKilled = 128 + 9;
  killed.status = kKilled;
  killed.message = "its supervisor was killed, or this host went down, while it ran";
  killed.cause = "failed";
  killed.started_ms = number_member(**begun, "started_ms").value_or(0);
  return killed;
}

Result<void> StateDirectory::begin(std::int64_t now_ms) const {
  if (auto written = write_json_file(file(kBegun), {{"started_ms", now_ms}}); !written) {
    return written;
  }
  if (::unlink(record().c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, "cannot remove '{}'", record());
  }
  return {};
}

Result<Fd> StateDirectory::write_scripts(
    const std::vector<std::pair<std::string, std::string>>& scripts,
    const std::string& interpreter) const {
  const std::string path = file("scripts");
  if (auto removed = remove_tree(path); !removed) {
    return std::unexpected(removed.error());
  }
  auto directory = make_directory(path);
  if (!directory) {
    return directory;
  }
  const std::string way = way_to(*directory);
  for (const auto& [name, body] : scripts) {
    const std::string text =
        fmt::format("#!{}\n{}{}", interpreter, body, body.ends_with('\n') ? "" : "\n");
    constexpr unsigned kExecutable = 0755;
    if (auto written = write_file(fmt::format("{}/{}", way, name), text, kExecutable); !written) {
      return std::unexpected(renamed(written.error(), way, path));
    }
  }
  // Whoever a program in the sandbox runs as.
  if (::fchmod(directory->get(), 0755) != 0) {
    return fail_errno(errno, "cannot make '{}' readable", path);
  }
  return directory;
}

}  // namespace msb::sandbox
