// SPDX-License-Identifier: Apache-2.0
#include "server/presence.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <limits>

#include "sandbox/files.hpp"
#include "sandbox/locked_file.hpp"

namespace msb::server {

namespace {

using sandbox::Json;

// Between two looks of find_server(), servers can come and go.
constexpr int kAttempts = 5;

std::string lock_of(const std::string& folder) {
  return folder + "/lock";
}

std::string announcement_of(const std::string& folder) {
  return folder + "/running.json";
}

// What the announcement says; nothing when there is none. Without a pidfd.
Result<std::optional<RunningServer>> read_announcement(const std::string& folder) {
  const std::string path = announcement_of(folder);
  const auto document = sandbox::read_json_file(path);
  if (!document) {
    return std::unexpected(document.error());
  }
  if (!*document) {
    return std::nullopt;
  }
  const auto pid = sandbox::number_member(**document, "pid");
  const auto url = sandbox::text_member(**document, "url");
  const auto started = sandbox::number_member(**document, "started_ms");
  const auto dev = (*document)->find("dev");
  if (!pid || *pid <= 0 || *pid > std::numeric_limits<pid_t>::max() || !url || !started ||
      dev == (*document)->end() || !dev->is_boolean()) {
    return fail("'{}' is damaged; end the server that holds '{}', and start it anew", path,
                lock_of(folder));
  }
  RunningServer server;
  server.pid = *pid;
  server.url = *url;
  server.started_ms = *started;
  server.dev = dev->get<bool>();
  return server;
}

}  // namespace

std::string server_folder(const std::string& home) {
  return home + "/server";
}

Result<std::optional<RunningServer>> find_server(const std::string& home) {
  const std::string folder = server_folder(home);
  const auto directory = sandbox::open_directory(folder);
  if (!directory) {
    return std::unexpected(directory.error());
  }
  if (!*directory) {
    return std::nullopt;
  }
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto runs = sandbox::is_locked(lock_of(folder));
    if (!runs) {
      return std::unexpected(runs.error());
    }
    if (!*runs) {
      return std::nullopt;
    }
    auto server = read_announcement(folder);
    if (!server) {
      return std::unexpected(server.error());
    }
    if (!*server) {
      break;
    }
    (*server)->process =
        Fd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>((*server)->pid), 0)));
    if (!(*server)->process) {
      if (errno == ESRCH) {
        continue;  // it has ended since
      }
      return fail_errno(errno, "cannot watch the server, process {}", (*server)->pid);
    }
    // The number may have become another process's before it was opened. Not while the server that
    // has it holds the lock, as it still does when both are as they were.
    const auto still_runs = sandbox::is_locked(lock_of(folder));
    const auto again = read_announcement(folder);
    if (still_runs && *still_runs && again && *again && (*again)->pid == (*server)->pid &&
        (*again)->started_ms == (*server)->started_ms) {
      return server;
    }
  }
  return fail("the server of '{}' is about to start or to end; try again", home);
}

Result<Presence> Presence::take(const std::string& home) {
  std::string folder = server_folder(home);
  if (auto made = sandbox::make_directory(folder); !made) {
    return std::unexpected(made.error());
  }
  auto lock = sandbox::take_lock(lock_of(folder));
  if (!lock) {
    return std::unexpected(lock.error());
  }
  if (!*lock) {
    const auto other = find_server(home);
    if (!other || !*other) {
      return fail("another server of '{}' is about to start or to end; try again", home);
    }
    return fail("a server runs already: {} (process {}); stop it with `msb server stop` first",
                (*other)->url, (*other)->pid);
  }
  // The process that it names is another server's by now, or a stranger's.
  const std::string announcement = announcement_of(folder);
  if (::unlink(announcement.c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, "cannot remove '{}'", announcement);
  }
  return Presence(std::move(folder), std::move(**lock));
}

Result<void> Presence::announce(const std::string& url, bool dev) const {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return sandbox::write_json_file(
      announcement_of(folder_),
      {{"pid", ::getpid()},
       {"url", url},
       {"started_ms", std::chrono::duration_cast<std::chrono::milliseconds>(now).count()},
       {"dev", dev}});
}

}  // namespace msb::server
