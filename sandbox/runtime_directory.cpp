// SPDX-License-Identifier: Apache-2.0
#include "sandbox/runtime_directory.hpp"

#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "sandbox/files.hpp"
#include "sandbox/locked_file.hpp"

namespace msb::sandbox {

namespace {

// Held while a directory is made or removed, so that none is taken for a dead one's before it has
// its lock.
constexpr const char* kChangeLock = "/.lock";
constexpr std::string_view kLink = "state-";
// What is left of the 108 bytes of a socket's address for the directory of all.
constexpr std::size_t kMaxBase = 80;

Result<std::string> base_directory() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  std::string path = runtime != nullptr && runtime[0] == '/'
                         ? fmt::format("{}/microsandbox", runtime)
                         : fmt::format("/tmp/microsandbox-{}", ::geteuid());
  if (path.size() > kMaxBase) {
    return fail("the path '{}' is too long for sockets: set XDG_RUNTIME_DIR to a shorter one",
                path);
  }
  auto made = make_directory(path);
  if (!made) {
    return std::unexpected(made.error());
  }
  // Whoever can write into it could put sockets of his own there.
  struct stat status{};
  if (::fstat(made->get(), &status) != 0 || (status.st_mode & 0022) != 0) {
    return fail("'{}' can be written by others; remove it, or take those permissions away", path);
  }
  return path;
}

bool is_id(std::string_view name) {
  return name.size() == 8 && name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Where the state's sandbox is found whichever id it has this time.
std::string link_of(const std::string& base, const std::string& state) {
  return fmt::format("{}/{}{:016x}", base, kLink, XXH3_64bits(state.data(), state.size()));
}

// A link that leads nowhere was left by a sandbox that has ended.
void sweep_link(const std::string& base, const std::filesystem::path& link) {
  const auto lock = take_lock(base + kChangeLock);  // another look comes when it is not free
  std::error_code error;
  if (lock && *lock && !std::filesystem::exists(link, error)) {
    std::filesystem::remove(link, error);
  }
}

std::string random_id() {
  std::uint32_t number = 0;
  while (::getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) {
  }
  return fmt::format("{:08x}", number);
}

Result<Identity> read_identity(const std::string& directory) {
  const auto document = read_json_file(directory + "/identity");
  if (!document) {
    return std::unexpected(document.error());
  }
  if (!*document) {
    return fail("'{}' has no identity", directory);
  }
  const auto kind = parse_kind(text_member(**document, "kind").value_or(""));
  if (!kind) {
    return std::unexpected(kind.error());
  }
  Identity who{*kind, text_member(**document, "name").value_or(""),
               text_member(**document, "project").value_or(""),
               text_member(**document, "state").value_or(""),
               parse_purpose(text_member(**document, "purpose").value_or(""))};
  if (auto checked = check_name(who.name); !checked) {
    return std::unexpected(checked.error());
  }
  return who;
}

// Under the lock of changes a directory without a lock that is held has nobody.
void sweep(const std::string& base, const std::string& directory) {
  const auto lock = take_lock(base + kChangeLock);  // another look comes when it is not free
  const auto held = is_locked(directory + "/lock");
  if (lock && *lock && held && !*held) {
    std::error_code error;
    std::filesystem::remove_all(directory, error);  // another try comes with the next look
  }
}

}  // namespace

Result<RuntimeDirectory> make_runtime_directory(const Identity& who) {
  const auto base = base_directory();
  if (!base) {
    return std::unexpected(base.error());
  }
  const auto changing = wait_for_lock(*base + kChangeLock);
  if (!changing) {
    return std::unexpected(changing.error());
  }
  RuntimeDirectory made;
  Running& running = made.running;
  running.who = who;
  do {
    running.id = random_id();
    running.directory = fmt::format("{}/{}", *base, running.id);
  } while (::mkdir(running.directory.c_str(), 0700) != 0 && errno == EEXIST);
  auto lock = take_lock(running.directory + "/lock");
  if (!lock) {
    return std::unexpected(lock.error());
  }
  made.lock = std::move(**lock);
  const Json identity = {{"kind", kind_word(who.kind)},
                         {"name", who.name},
                         {"project", who.project},
                         {"state", who.state},
                         {"purpose", purpose_word(who.purpose)}};
  // Nothing of it outlives a power cut, so that it need not be made durable.
  if (auto written = write_json_file(running.directory + "/identity", identity); !written) {
    remove_runtime_directory(running);
    return std::unexpected(written.error());
  }
  return made;
}

Result<void> make_lasting_link(const Running& running) {
  const auto base = base_directory();
  const auto changing = base ? wait_for_lock(*base + kChangeLock) : std::unexpected(base.error());
  if (!changing) {
    return std::unexpected(changing.error());
  }
  const std::string link = link_of(*base, running.who.state);
  ::unlink(link.c_str());
  if (::symlink(running.id.c_str(), link.c_str()) != 0) {
    return fail_errno(errno, "cannot make '{}'", link);
  }
  return {};
}

Result<std::string> lasting_agent_socket(const std::string& state) {
  const auto base = base_directory();
  return base ? Result<std::string>(link_of(*base, state) + "/agent") : base;
}

bool is_alive(const Running& running) {
  const auto held = is_locked(running.directory + "/lock");
  return held && *held;
}

void remove_runtime_directory(const Running& running) {
  std::error_code error;
  std::filesystem::remove_all(running.directory, error);
}

void clear_dead() {
  [[maybe_unused]] const auto running = list_running();
}

Result<std::vector<Running>> list_running() {
  const auto base = base_directory();
  if (!base) {
    return std::unexpected(base.error());
  }
  std::vector<std::pair<std::filesystem::file_time_type, Running>> found;
  std::vector<std::filesystem::path> links;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(*base, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string id = entry->path().filename().string();
    if (id.starts_with(kLink)) {
      links.push_back(entry->path());
      continue;
    }
    if (!is_id(id)) {
      continue;
    }
    const std::string directory = entry->path().string();
    const auto held = is_locked(directory + "/lock");
    if (!held) {
      continue;
    }
    if (!*held) {
      sweep(*base, directory);
      continue;
    }
    auto who = read_identity(directory);
    std::error_code gone;
    const auto time = std::filesystem::last_write_time(directory + "/identity", gone);
    if (who && !gone) {
      found.emplace_back(time, Running{std::move(*who), id, directory});
    }
  }
  if (error) {
    return fail_errno(error.value(), "cannot list '{}'", *base);
  }
  for (const std::filesystem::path& link : links) {
    std::error_code gone;
    if (!std::filesystem::exists(link, gone)) {
      sweep_link(*base, link);
    }
  }
  std::ranges::sort(found, {}, [](const auto& pair) { return pair.first; });
  std::vector<Running> running;
  running.reserve(found.size());
  for (auto& [time, sandbox] : found) {
    running.push_back(std::move(sandbox));
  }
  return running;
}

}  // namespace msb::sandbox
