// SPDX-License-Identifier: Apache-2.0
// What of the sandboxes is on disk and runs without this process's doing: what a server before it
// left, and what an `msb mcp` or a server beside it makes, starts and removes.
#include <algorithm>
#include <boost/asio/detached.hpp>
#include <filesystem>
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

// Namespaces and names.
std::vector<std::pair<std::string, std::string>> list_places(const std::string& folder) {
  std::vector<std::pair<std::string, std::string>> all;
  std::error_code error;
  for (const auto& space : std::filesystem::directory_iterator(folder, error)) {
    std::error_code inner;
    for (const auto& one : std::filesystem::directory_iterator(space.path(), inner)) {
      const std::string name = one.path().filename().string();
      if (!sandbox::is_remainder(name) && sandbox::check_name(name)) {
        all.emplace_back(space.path().filename().string(), name);
      }
    }
  }
  return all;
}

// Removes those that a process was making when it was killed: they have no record yet.
void remove_unmade(const std::string& folder) {
  for (const auto& [space, name] : list_places(folder)) {
    const sandbox::StateDirectory state(fmt::format("{}/{}/{}", folder, space, name));
    if (const auto record = read_record(state); record && !*record) {
      (void)state.remove();  // not when it is being made now
    }
  }
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
  std::vector<Served> superfluous;
  for (const auto& [place, served] : sandboxes_) {
    if (served->record.ephemeral && served->stage == Stage::kStopped &&
        !options_.keeper.lives(served->record.keeper)) {
      superfluous.push_back(served);
    }
  }
  for (const Served& served : superfluous) {
    asio::co_spawn(io_, sweep(served), asio::detached);
  }
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
  const auto list_there = [folder] { return list_places(folder); };
  auto places = co_await workers_.run(list_there);
  for (const auto& [place, served] : sandboxes_) {
    places.push_back(place);  // one that is not there any more
  }
  std::ranges::sort(places);
  const auto twice = std::ranges::unique(places);
  places.erase(twice.begin(), twice.end());
  std::vector<std::string> notices;
  for (auto& [space, name] : places) {
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
    const std::uint64_t before = changes_;
    Found found = co_await workers_.run(look_there);
    if (!served && changes_ != before) {
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
      ++changes_;
      auto entered = co_await served->gate.enter();
      pass.emplace(std::move(entered));
    }
    if (found.running) {
      co_return co_await take_over(served, std::move(*found.running));
    }
    break;
  }
  co_return Result<void>();
}

// One that another has started; with its gate's pass.
Async<Result<void>> Sandboxes::take_over(Served served, sandbox::Running running) {
  const auto ask = [running] { return supervisor_of(running); };
  auto supervisor = co_await workers_.run(ask);
  if (!supervisor) {
    co_return std::unexpected(supervisor.error().within(served->name));
  }
  served->running = std::move(running);
  served->stage = Stage::kRunning;
  served->supervisor = std::make_shared<Fd>(std::move(*supervisor));
  asio::co_spawn(io_, watch_adopted(served), asio::detached);
  auto connected = co_await connect(served);
  if (!connected) {
    co_return std::unexpected(connected.error().within(served->name));
  }
  co_return connected;
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
  ++changes_;
}

}  // namespace msb::server
