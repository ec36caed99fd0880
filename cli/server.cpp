// SPDX-License-Identifier: Apache-2.0
#include "cli/server.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <system_error>
#include <vector>

#include "base/home.hpp"
#include "base/nearest_word.hpp"
#include "cli/notice.hpp"
#include "cli/program_parts.hpp"
#include "cli/text.hpp"
#include "oci/printable.hpp"
#include "sandbox/control_client.hpp"
#include "sandbox/spec_words.hpp"
#include "sandbox/state_directory.hpp"
#include "server/keys.hpp"
#include "server/presence.hpp"
#include "server/record.hpp"
#include "server/utf8.hpp"

namespace msb::cli {

namespace {

// It drains for 30 s, and what it waits for then is its own.
constexpr std::chrono::seconds kStopPatience{45};
constexpr int kNotRunning = 1;

Result<server::RunningServer> get_server() {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  auto found = server::find_server(*home);
  if (!found) {
    return std::unexpected(found.error());
  }
  if (!*found) {
    return fail("no server runs; `msb server start` starts one");
  }
  return std::move(**found);
}

Result<server::Keys> open_keys() {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  return server::Keys(server::server_folder(*home) + "/keys.json");
}

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string time_text(std::int64_t since_epoch_ms) {
  constexpr std::int64_t kSecond = 1000;
  return format_time(since_epoch_ms / kSecond);
}

Json describe(const server::Key& key) {
  Json document = {{"id", key.id},
                   {"name", key.name},
                   {"namespace", key.scope.space},
                   {"read_only", key.scope.read_only},
                   {"created_at", time_text(key.created_ms)},
                   {"expires_at", nullptr}};
  if (key.expires_ms) {
    document["expires_at"] = time_text(*key.expires_ms);
  }
  const auto limit = [&](const char* name, const std::optional<std::uint32_t>& value) {
    document[name] = value ? Json(*value) : Json();
  };
  limit("max_sandboxes", key.scope.max_sandboxes);
  limit("max_memory_mib", key.scope.max_memory_mib);
  limit("max_lifetime_s", key.scope.max_lifetime_s);
  return document;
}

// As it is where a terminal can show it so, else with escapes, of which the name has none itself.
std::string shown_name(const std::string& name) {
  return server::is_plain_text(name) && !name.contains('\\') ? name : oci::printable(name);
}

struct ServedName {
  std::string space;
  std::string name;
  std::string image;
  bool running = false;
};

// What is on disk: also without a server that runs.
Result<std::vector<ServedName>> find_served() {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  std::vector<ServedName> all;
  std::error_code error;
  const std::string folder = server::server_folder(*home) + "/sandboxes";
  for (const auto& space : std::filesystem::directory_iterator(folder, error)) {
    std::error_code inner;
    for (const auto& one : std::filesystem::directory_iterator(space.path(), inner)) {
      const sandbox::StateDirectory state(one.path().string());
      const auto record = server::read_record(state);
      if (!record || !*record) {
        continue;
      }
      const auto running = state.running_id();
      all.push_back({space.path().filename().string(), one.path().filename().string(),
                     (*record)->spec.image, running && *running});
    }
  }
  std::ranges::sort(all, {}, [](const ServedName& one) { return std::tie(one.space, one.name); });
  return all;
}

}  // namespace

Result<void> stop_server() {
  const auto running = get_server();
  if (!running) {
    return std::unexpected(running.error());
  }
  if (::syscall(SYS_pidfd_send_signal, running->process.get(), SIGTERM, nullptr, 0) != 0) {
    return fail_errno(errno, "cannot tell the server, process {}, to stop", running->pid);
  }
  Notice notice("Stopping the server");
  if (!sandbox::wait_for_end(running->process, kSoon)) {
    notice.show();
    if (!sandbox::wait_for_end(running->process, kStopPatience)) {
      return fail("the server, process {}, does not end", running->pid);
    }
  }
  return print("The server is down; its sandboxes go on\n");
}

Result<int> show_server(Format format) {
  const auto home = home_directory();
  const auto found = home ? server::find_server(*home) : std::unexpected(home.error());
  if (!found) {
    return std::unexpected(found.error());
  }
  const auto served = find_served();
  if (!served) {
    return std::unexpected(served.error());
  }
  const auto active = std::ranges::count_if(*served, &ServedName::running);
  Result<void> printed;
  if (format == Format::kJson) {
    Json document = {{"running", found->has_value()},
                     {"sandboxes", served->size()},
                     {"sandboxes_running", active}};
    if (*found) {
      document["url"] = (*found)->url;
      document["pid"] = (*found)->pid;
      document["started_at"] = time_text((*found)->started_ms);
      document["dev"] = (*found)->dev;
    }
    printed = print_json(document);
  } else if (*found) {
    const auto age = std::chrono::seconds((now_ms() - (*found)->started_ms) / 1000);
    printed =
        print(fmt::format("The server runs at {} (process {}, started {}{})\n{} of its {} "
                          "sandboxes run\n",
                          (*found)->url, (*found)->pid, format_age(age),
                          (*found)->dev ? ", without keys" : "", active, served->size()));
  } else {
    printed = print("No server runs; `msb server start` starts one\n");
  }
  if (!printed) {
    return std::unexpected(printed.error());
  }
  return *found ? 0 : kNotRunning;
}

Result<int> show_server_log(const ServerLogWords& words) {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  const std::string path = server::server_folder(*home) + "/log";
  if (::access(path.c_str(), R_OK) != 0) {
    return fail(
        "there is no log: a server in the background (`msb server start --detach`) writes it");
  }
  return std::unexpected(
      become_program("/usr/bin/tail", {"tail", "-n", words.tail.empty() ? "+1" : words.tail,
                                       words.follow ? "-F" : "-q", "--", path}));
}

Result<void> list_served(Format format) {
  const auto served = find_served();
  if (!served) {
    return std::unexpected(served.error());
  }
  if (format == Format::kJson) {
    Json documents = Json::array();
    for (const ServedName& one : *served) {
      documents.push_back({{"namespace", one.space},
                           {"name", one.name},
                           {"image", one.image},
                           {"running", one.running}});
    }
    return print_json(documents);
  }
  std::vector<std::vector<std::string>> rows = {{"NAMESPACE", "NAME", "IMAGE", "STATE"}};
  for (const ServedName& one : *served) {
    rows.push_back(
        {one.space, one.name, oci::printable(one.image), one.running ? "running" : "stopped"});
  }
  return print(format_table(rows));
}

Result<void> remove_served(const std::string& name, const std::string& space) {
  const auto served = find_served();
  if (!served) {
    return std::unexpected(served.error());
  }
  std::vector<std::string> names;
  for (const ServedName& one : *served) {
    if (one.space == space) {
      names.push_back(one.name);
    }
  }
  if (std::ranges::find(names, name) == names.end()) {
    return fail("the server has no sandbox '{}' in the namespace '{}'{}", oci::printable(name),
                oci::printable(space), did_you_mean(name, names));
  }
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  const auto removed =
      sandbox::StateDirectory(
          fmt::format("{}/sandboxes/{}/{}", server::server_folder(*home), space, name))
          .remove();
  if (!removed) {
    return std::unexpected(removed.error());
  }
  if (!*removed) {
    return fail("'{}' runs; `msb stop {}` stops it", name, name);
  }
  return print(fmt::format("Removed {} ({})\n", name, format_size(**removed)));
}

Result<void> make_key(const KeygenWords& words, Format format) {
  server::Key key;
  key.name = words.name;
  key.scope.read_only = words.read_only;
  if (!words.space.empty()) {
    key.scope.space = words.space;
  }
  if (words.max_sandboxes > 0) {
    key.scope.max_sandboxes = words.max_sandboxes;
  }
  if (!words.max_memory.empty()) {
    const auto memory = sandbox::parse_memory(words.max_memory);
    if (!memory) {
      return std::unexpected(memory.error().within("--max-memory"));
    }
    key.scope.max_memory_mib = *memory;
  }
  if (!words.max_lifetime.empty()) {
    const auto lifetime = sandbox::parse_duration(words.max_lifetime);
    if (!lifetime) {
      return std::unexpected(lifetime.error().within("--max-lifetime"));
    }
    key.scope.max_lifetime_s = *lifetime;
  }
  if (!words.expire.empty()) {
    const auto seconds = server::parse_expiry(words.expire);
    if (!seconds) {
      return std::unexpected(seconds.error().within("--expire"));
    }
    constexpr std::int64_t kSecond = 1000;
    key.expires_ms = now_ms() + *seconds * kSecond;
  }
  auto keys = open_keys();
  if (!keys) {
    return std::unexpected(keys.error());
  }
  const auto created = keys->create(std::move(key));
  if (!created) {
    return std::unexpected(created.error());
  }
  if (format == Format::kJson) {
    Json document = describe(created->key);
    document["key"] = created->text;
    return print_json(document);
  }
  if (::isatty(STDERR_FILENO) == 1) {
    write_error(
        "This is the only time that the key is shown; clients send it as `Authorization: Bearer "
        "KEY`.\n");
  }
  return print(created->text + "\n");
}

Result<void> list_keys(Format format) {
  auto keys = open_keys();
  const auto all = keys ? keys->list() : std::unexpected(keys.error());
  if (!all) {
    return std::unexpected(all.error());
  }
  if (format == Format::kJson) {
    Json documents = Json::array();
    for (const server::Key& key : *all) {
      documents.push_back(describe(key));
    }
    return print_json(documents);
  }
  const auto limit = [](const std::optional<std::uint32_t>& value, const char* unit) {
    return value ? fmt::format("{}{}", *value, unit) : std::string("-");
  };
  std::vector<std::vector<std::string>> rows = {
      {"ID", "NAME", "NAMESPACE", "MAY", "SANDBOXES", "MEMORY", "LIFETIME", "CREATED", "EXPIRES"}};
  for (const server::Key& key : *all) {
    rows.push_back({key.id, key.name.empty() ? "-" : shown_name(key.name), key.scope.space,
                    key.scope.read_only ? "look" : "all", limit(key.scope.max_sandboxes, ""),
                    limit(key.scope.max_memory_mib, " MiB"), limit(key.scope.max_lifetime_s, " s"),
                    time_text(key.created_ms),
                    key.expires_ms ? time_text(*key.expires_ms) : "never"});
  }
  return print(format_table(rows));
}

Result<void> revoke_key(const std::string& id) {
  auto keys = open_keys();
  if (!keys) {
    return std::unexpected(keys.error());
  }
  const auto revoked = keys->revoke(id);
  if (!revoked) {
    return std::unexpected(revoked.error());
  }
  if (!*revoked) {
    return fail("there is no key '{}'; `msb server keys` shows those that there are",
                oci::printable(id));
  }
  return print(fmt::format("Revoked {}\n", id));
}

}  // namespace msb::cli
