// SPDX-License-Identifier: Apache-2.0
// What of the sandboxes is on disk and runs without this process's doing: what a server before it
// left, and what an `msb mcp` or a server beside it makes, starts and removes.
#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "sandbox/control_client.hpp"
#include "sandbox/state_directory.hpp"
#include "server/presence.hpp"
#include "server/sandboxes.hpp"

namespace msb::server {

namespace {

// Between two looks, this process itself makes and removes some.
constexpr int kAttempts = 5;

// For one that another program starts to run, and between two looks at it.
constexpr std::chrono::seconds kStartPatience{60};
constexpr std::chrono::milliseconds kStartInterval{200};

struct Found {
  std::string state;
  Result<std::optional<Record>> record;  // nothing: there is none, or it is being made
  std::optional<sandbox::Running> running;
};

std::optional<sandbox::Running> running_of(const std::string& state) {
  const auto id = sandbox::StateDirectory(state).running_id();
  if (!id || !*id || (*id)->empty()) {
    return std::nullopt;
  }
  const auto all = sandbox::list_running();
  if (all) {
    for (const sandbox::Running& one : *all) {
      if (one.who.state == state) {
        return one;
      }
    }
  }
  return std::nullopt;
}

Found look_at(const std::string& state) {
  auto record = read_record(sandbox::StateDirectory(state));
  const bool there = record && *record;
  return {state, std::move(record), there ? running_of(state) : std::nullopt};
}

using Place = std::pair<std::string, std::string>;  // namespace and name

// What is in a directory, as far as it can be read; `wrong`: why no further.
std::vector<std::string> names_in(const std::string& folder, std::error_code& wrong) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(folder, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    wrong = error;
  }
  return names;
}

std::map<Place, std::string> list_states(const std::string& folder, std::error_code& wrong) {
  std::map<Place, std::string> all;
  for (const std::string& space : names_in(folder, wrong)) {
    const std::string inner = fmt::format("{}/{}", folder, space);
    for (const std::string& name : names_in(inner, wrong)) {
      if (!sandbox::is_remainder(name) && sandbox::check_name(name)) {
        all.emplace(Place(space, name), fmt::format("{}/{}", inner, name));
      }
    }
  }
  return all;
}

// Removes those that a process was making when it was killed: they have no record yet.
void remove_unmade(const std::string& folder) {
  std::error_code wrong;  // the look behind this tells of it
  for (const auto& [place, path] : list_states(folder, wrong)) {
    const sandbox::StateDirectory state(path);
    if (const auto record = read_record(state); record && !*record) {
      [[maybe_unused]] const auto removed = state.remove();  // not when it is being made now
    }
  }
}

struct Around {
  std::map<Place, Found> found;
  std::error_code wrong;
};

Around look_at_all(const std::string& folder) {
  Around around;
  for (const auto& [place, path] : list_states(folder, around.wrong)) {
    around.found.emplace(place, look_at(path));
  }
  return around;
}

Result<Fd> supervisor_of(const sandbox::Running& running) {
  const auto client = sandbox::ControlClient::connect(running.control_socket());
  return client ? client->supervisor() : Result<Fd>(std::unexpected(client.error()));
}

}  // namespace

Async<> Sandboxes::adopt(std::vector<std::string>& notices) {
  const std::string folder = server_folder(options_.home) + "/sandboxes";
  const auto remove = [folder] {
    remove_unmade(folder);
    return true;
  };
  co_await workers_.run(remove);
  notices = co_await look_around();
}

// An ephemeral one whose end nobody saw who would have removed it.
bool Sandboxes::is_superfluous(const ServedSandbox& served) const {
  return served.record.ephemeral && served.stage == Stage::kStopped &&
         !options_.keeper.lives(served.record.keeper);
}

Async<> Sandboxes::refresh(Key key, std::string space, std::string name) {
  if (may_enter(key, space) && sandbox::check_name(space) && sandbox::check_name(name)) {
    (void)co_await look_again(std::move(space), std::move(name));
  }
}

Async<> Sandboxes::refresh_all() {
  (void)co_await look_around();
}

Async<std::vector<std::string>> Sandboxes::look_around() {
  const std::string folder = server_folder(options_.home) + "/sandboxes";
  const auto look_there = [folder] { return look_at_all(folder); };
  const Around around = co_await workers_.run(look_there);
  std::vector<std::string> notices;
  if (around.wrong) {
    notices.push_back(fmt::format("cannot read '{}' to its end: {}; see whose directories they are",
                                  folder, around.wrong.message()));
  }
  // Mostly all is as it was known.
  std::vector<Place> changed;
  for (const auto& [place, found] : around.found) {
    const auto known = sandboxes_.find(place);
    const bool same = known != sandboxes_.end() && found.record && *found.record &&
                      (known->second->stage != Stage::kStopped ||
                       (!found.running && **found.record == known->second->record &&
                        !is_superfluous(*known->second)));
    if (!same) {
      changed.push_back(place);
    }
  }
  for (const auto& [place, served] : sandboxes_) {
    if (served->stage == Stage::kStopped && !around.found.contains(place)) {
      changed.push_back(place);
    }
  }
  for (auto& [space, name] : changed) {
    auto looked = co_await look_again(std::move(space), std::move(name));
    if (!looked) {
      notices.push_back(looked.error().message);
    }
  }
  co_return notices;
}

// What runs as far as this process knows, does: it watches its supervisor.
Async<Result<void>> Sandboxes::look_again(std::string space, std::string name) {
  const std::pair place{space, name};
  const std::string state = state_of(space, name);
  const auto look_there = [state] { return look_at(state); };
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Served served;
    if (const auto known = sandboxes_.find(place); known != sandboxes_.end()) {
      served = known->second;
    }
    if (served && served->stage != Stage::kStopped) {
      break;
    }
    std::optional<Gate::Pass> pass;
    if (served) {
      auto entered = co_await served->gate.enter();
      pass.emplace(std::move(entered));
    }
    if (served && (served->removed || served->stage != Stage::kStopped)) {
      continue;
    }
    const std::uint64_t before = removals_;
    Found found = co_await workers_.run(look_there);
    // What was not known may have been made meanwhile, and what was seen be removed since.
    const bool known_now = !served && sandboxes_.contains(place);
    const bool may_be_gone = !served && removals_ != before && attempt + 1 < kAttempts;
    if (known_now || may_be_gone) {
      continue;
    }
    if (!found.record) {
      co_return std::unexpected(found.record.error());
    }
    if (!*found.record) {
      if (served) {
        forget(served);
      }
      break;
    }
    if (served) {
      served->record = std::move(**found.record);
    } else {
      served = std::make_shared<ServedSandbox>(space, name, state, std::move(**found.record));
      sandboxes_[place] = served;
      auto entered = co_await served->gate.enter();
      pass.emplace(std::move(entered));
    }
    if (found.running) {
      co_return co_await take_over(served, std::move(*found.running));
    }
    if (is_superfluous(*served)) {
      asio::co_spawn(io_, sweep(served), Unattended());
    }
    break;
  }
  co_return Result<void>();
}

// One that another has started; with its gate's pass. Where that fails, the next look tries again.
Async<Result<void>> Sandboxes::take_over(Served served, sandbox::Running running) {
  const auto ask = [running] { return supervisor_of(running); };
  auto supervisor = co_await workers_.run(ask);
  if (!supervisor) {
    co_return std::unexpected(supervisor.error().within(served->name));
  }
  served->running = std::move(running);
  served->stage = Stage::kStarting;
  served->elsewhere = true;
  const auto connected = co_await connect(served);
  served->stage = connected ? *connected : Stage::kStopped;
  if (!connected) {
    co_return std::unexpected(connected.error().within(served->name));
  }
  served->supervisor = std::make_shared<Fd>(std::move(*supervisor));
  asio::co_spawn(io_, watch_adopted(served), Unattended());
  if (served->stage == Stage::kStarting) {
    asio::co_spawn(io_, follow_start(served), Unattended());
  }
  co_return Result<void>();
}

// Until it runs, which its supervisor has to be asked for. When it does not in time, and nobody
// else waits for it, it is ended.
Async<> Sandboxes::follow_start(Served served) {
  const auto deadline = Signal::Clock::now() + kStartPatience;
  while (served->stage == Stage::kStarting && Signal::Clock::now() < deadline) {
    Signal never;
    co_await never.wait(Signal::Clock::now() + kStartInterval);
    const auto pass = co_await served->gate.enter();
    if (served->stage == Stage::kStarting) {
      const auto connected = co_await connect(served);
      if (connected && served->stage == Stage::kStarting) {
        served->stage = *connected;
      }
    }
  }
  const auto pass = co_await served->gate.enter();
  if (served->stage == Stage::kStarting && !options_.keeper.lives(served->record.keeper)) {
    (void)co_await end(served, true);
  }
  served->ended.notify();
}

Async<> Sandboxes::watch_adopted(Served served) {
  const auto supervisor = served->supervisor;
  co_await await_readable(supervisor->get());
  on_end(served);
}

// It is not on disk any more.
void Sandboxes::forget(const Served& served) {
  served->removed = true;
  sandboxes_.erase({served->space, served->name});
  ++removals_;
}

}  // namespace msb::server
