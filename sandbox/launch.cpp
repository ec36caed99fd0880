// SPDX-License-Identifier: Apache-2.0
#include "sandbox/launch.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/network_policy.hpp"
#include "sandbox/disk.hpp"
#include "sandbox/files.hpp"
#include "sandbox/spec_words.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::sandbox {

namespace {

// What the supervisor is given.
struct Parts {
  std::vector<std::string> arguments;
  std::vector<Fd> inherited;

  void add(std::string option, std::string value) {
    arguments.push_back(std::move(option));
    arguments.push_back(std::move(value));
  }
  // Takes a descriptor; its name in the supervisor.
  std::string pass(Fd file) {
    inherited.push_back(std::move(file));
    return fmt::format("/dev/fd/{}", inherited.back().get());
  }
};

void add_number(Parts& parts, const char* option, std::optional<std::uint64_t> value) {
  if (value) {
    parts.add(option, fmt::format("{}", *value));
  }
}

void add_network(Parts& parts, const SandboxSpec& spec) {
  NetworkPolicy said;
  const bool good = std::ranges::all_of(
      spec.network, [&said](const std::string& rule) { return add_rule(rule, said).has_value(); });
  if (spec.scope == Scope::kNone && good && !said.allows_anything()) {
    parts.add("--net", "none");  // ports and names of dependencies need no card
    return;
  }
  if (spec.scope) {
    parts.add("--policy", std::string(scope_word(*spec.scope)));
  }
  for (const std::string& rule : spec.network) {
    parts.add("--rule", rule);
  }
}

void add_spec(Parts& parts, const LaunchOptions& options) {
  const SandboxSpec& spec = options.spec;
  parts.add("--hostname", options.who.name);
  parts.add("--name", options.who.name);
  add_number(parts, "--cpus", spec.cpus);
  add_number(parts, "--memory", spec.memory_mib);
  add_number(parts, "--processes", spec.processes);
  add_number(parts, "--timeout", spec.timeout_s);
  add_number(parts, "--idle-timeout", spec.idle_timeout_s);
  add_network(parts, spec);
  for (const std::string& port : spec.ports) {
    parts.add("--publish", port);
  }
  for (const std::string& host : options.hosts) {
    parts.add("--host", host);
  }
  for (const std::string& variable : options.environment) {
    parts.add("--env", variable);
  }
  if (!spec.workdir.empty()) {
    parts.add("--workdir", spec.workdir);
  }
  if (!spec.user.empty()) {
    parts.add("--user", spec.user);
  }
}

void add_volumes(Parts& parts, std::vector<OpenVolume> volumes) {
  for (OpenVolume& volume : volumes) {
    const std::string file = parts.pass(std::move(volume.file));
    parts.add("--share", fmt::format("{}:{}{}", file, volume.guest, volume.read_only ? ":ro" : ""));
  }
}

void add_task(Parts& parts, const LaunchOptions& options) {
  if (options.background) {
    parts.arguments.emplace_back("--background");
  } else if (options.terminal) {
    parts.arguments.emplace_back("--detach-keys");
  }
  if (options.terminal) {
    parts.arguments.emplace_back("--tty");
  }
  if (options.timing) {
    parts.arguments.emplace_back("--timing");
  }
  if (options.task.idle) {
    parts.arguments.emplace_back("--idle");
    return;
  }
  if (options.task.no_entrypoint) {
    parts.arguments.emplace_back("--no-entrypoint");
  }
  if (options.task.extend) {
    parts.arguments.emplace_back("--extend-command");
  }
  if (!options.task.command.empty()) {
    parts.arguments.emplace_back("--");
    std::ranges::copy(options.task.command, std::back_inserter(parts.arguments));
  }
}

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// The disk and the files of one that keeps its state.
Result<void> add_state(Parts& parts, const LaunchOptions& options, const StateDirectory& state) {
  // The image was chosen before: another start may have made the disk of another one meanwhile.
  const auto pinned = state.image();
  if (!pinned) {
    return std::unexpected(pinned.error());
  }
  if (*pinned && (*pinned)->digest != options.pin.digest) {
    return fail("'{}' was started with another image in the meantime; try again", options.who.name);
  }
  if (!*pinned) {
    if (auto written = state.pin(options.pin); !written) {
      return written;
    }
  }
  auto disk = prepare_disk(state.disk(), options.spec.disk_mib.value_or(kDefaultDiskMib));
  if (!disk) {
    return std::unexpected(disk.error());
  }
  parts.add("--upper", parts.pass(std::move(*disk)));
  std::vector<std::pair<std::string, std::string>> scripts(options.spec.scripts.begin(),
                                                           options.spec.scripts.end());
  if (!scripts.empty()) {
    const std::string& shell = options.spec.shell;
    const std::string interpreter = shell.empty()            ? "/bin/sh"
                                    : shell.starts_with('/') ? shell
                                                             : "/usr/bin/env " + shell;
    auto folder = state.write_scripts(scripts, interpreter);
    if (!folder) {
      return std::unexpected(folder.error());
    }
    parts.add("--share",
              fmt::format("{}:{}:ro", parts.pass(std::move(*folder)), kScriptsDirectory));
    parts.add("--path", kScriptsDirectory);
  }
  return {};
}

// All of that, the lock and the places that the supervisor writes to itself. By descriptors: what
// they are called may mean something else by the time that they are used.
Result<void> take_state(Parts& parts, const LaunchOptions& options, const Running& running) {
  auto taken = StateDirectory(options.who.state).lock_when_free();
  if (!taken) {
    return std::unexpected(taken.error());
  }
  if (!*taken) {
    return std::unexpected(
        Error{fmt::format("'{}' is running already", options.who.name), kAlreadyRunning});
  }
  LockedState& locked = **taken;
  auto done = options.keep ? options.keep(locked.state) : Result<void>();
  if (done) {
    done = make_lasting_link(running);
  }
  if (done) {
    done = StateDirectory::say_id(locked.lock, running.id);
  }
  if (done) {
    done = add_state(parts, options, locked.state);
  }
  if (done && !options.aside) {
    done = locked.state.begin(now_ms());
  }
  if (!done) {
    return std::unexpected(locked.said(done.error()));
  }
  if (!options.aside) {
    const StateDirectory state(parts.pass(std::move(locked.directory)));
    parts.add("--log", state.log());
    parts.add("--record", state.record());
  }
  parts.inherited.push_back(std::move(locked.lock));
  return {};
}

Result<void> add_scratch(Parts& parts, const LaunchOptions& options, const Running& running) {
  auto disk = make_scratch_disk(options.home, options.spec.disk_mib.value_or(kDefaultDiskMib));
  if (!disk) {
    return std::unexpected(disk.error());
  }
  parts.add("--upper", parts.pass(std::move(*disk)));
  if (options.background) {
    parts.add("--log", running.directory + "/output");
  }
  return {};
}

}  // namespace

Result<Launched> launch(LaunchOptions options) {
  const auto directory = program_directory();
  if (!directory) {
    return std::unexpected(directory.error());
  }
  Parts parts;
  parts.arguments = {"msb", "run"};
  clear_dead();  // with what they left of their output
  auto runtime = make_runtime_directory(options.who);
  if (!runtime) {
    return std::unexpected(runtime.error());
  }
  Launched launched;
  launched.running_ = runtime->running;
  const auto give_up = [&](const Error& error) -> Result<Launched> {
    remove_runtime_directory(launched.running_);
    return std::unexpected(error);
  };
  const auto prepared = options.who.state.empty() ? add_scratch(parts, options, launched.running_)
                                                  : take_state(parts, options, launched.running_);
  if (!prepared) {
    return give_up(prepared.error());
  }
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return give_up({fmt::format("cannot make a pipe: {}", std::strerror(errno)), errno});
  }
  launched.events_.reset(ends[0]);
  parts.inherited.emplace_back(ends[1]);
  parts.add("--events", fmt::format("{}", ends[1]));
  parts.inherited.push_back(std::move(runtime->lock));
  parts.add("--runtime", launched.running_.directory);
  if (options.rootfs) {
    parts.add("--rootfs", parts.pass(std::move(options.rootfs->file)));
  } else {
    parts.add("--image", options.image);
  }
  add_spec(parts, options);
  add_volumes(parts, std::move(options.volumes));
  add_task(parts, options);

  ProgramOptions program{*directory + "/msb-vmm",
                         std::move(parts.arguments),
                         {},
                         !options.background && !options.bound};
  for (const Fd& descriptor : parts.inherited) {
    program.inherited.push_back(descriptor.get());
  }
  auto started = start_program(program);
  if (!started) {
    return give_up(started.error());
  }
  launched.supervisor_ = std::move(*started);
  return launched;
}

std::optional<Launched::Json> Launched::next_event(
    std::optional<std::chrono::milliseconds> patience) {
  const auto deadline =
      std::chrono::steady_clock::now() + patience.value_or(std::chrono::milliseconds(0));
  while (true) {
    if (const std::size_t end = received_.find('\n'); end != std::string::npos) {
      Json event = Json::parse(received_.substr(0, end), nullptr, false);
      received_.erase(0, end + 1);
      if (event.is_object()) {
        return event;
      }
      continue;
    }
    if (patience) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd entry{events_.get(), POLLIN, 0};
      if (left.count() <= 0 || ::poll(&entry, 1, static_cast<int>(left.count())) == 0) {
        return std::nullopt;
      }
    }
    char piece[4096];
    const ssize_t length = ::read(events_.get(), piece, sizeof piece);
    if (length == 0 || (length < 0 && errno != EINTR)) {
      return std::nullopt;
    }
    received_.append(piece, length < 0 ? 0 : static_cast<std::size_t>(length));
  }
}

int Launched::finish() {
  const int status = wait_for(supervisor_);
  clear_dead();
  return status;
}

}  // namespace msb::sandbox
