// SPDX-License-Identifier: Apache-2.0
#include "cli/entering.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>

#include "protocol/msb_exec.h"
#include "protocol/opener.hpp"
#include "sandbox/control_client.hpp"
#include "sandbox/files.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::cli {

namespace {

// How long a sandbox that was started to be entered waits for the next one who does.
constexpr std::uint32_t kLinger = 3;  // seconds
constexpr std::uint32_t kLookLinger = 1;
// How long another process may take to start one, or the guest to let us in.
constexpr std::chrono::seconds kPatience{60};
constexpr int kAttempts = 3;

void add(std::vector<std::string>& arguments, const char* option, const std::string& value) {
  if (!value.empty()) {
    arguments.emplace_back(option);
    arguments.push_back(value);
  }
}

using Words = std::vector<std::string>;

// What its own command has, and its image says, which the supervisor knows.
struct Surroundings {
  Words environment;
  Words entrypoint;
  Words image_command;
  std::string directory;
  std::string user;
};

Words words_member(const sandbox::Json& document, const char* name) {
  Words words;
  const auto member = document.find(name);
  if (member != document.end() && member->is_array()) {
    for (const auto& word : *member) {
      if (word.is_string()) {
        words.push_back(word.get<std::string>());
      }
    }
  }
  return words;
}

Result<Surroundings> surroundings(const sandbox::Running& running) {
  auto client = control(running);
  if (!client) {
    return std::unexpected(client.error());
  }
  const auto status = client->call("status");
  if (!status) {
    return std::unexpected(status.error());
  }
  Surroundings found;
  found.directory = sandbox::text_member(*status, "directory").value_or("");
  found.user = sandbox::text_member(*status, "user").value_or("");
  found.environment = words_member(*status, "environment");
  found.entrypoint = words_member(*status, "entrypoint");
  found.image_command = words_member(*status, "image_command");
  return found;
}

Result<Words> command_of(const Surroundings& around, const ExecWords& words) {
  Words command;
  if (words.entrypoint) {
    command = around.entrypoint;
  }
  if (words.extend) {
    command.insert(command.end(), around.image_command.begin(), around.image_command.end());
  }
  command.insert(command.end(), words.command.begin(), words.command.end());
  if (command.empty()) {
    return fail("the image names no command; give one after `--`");
  }
  return command;
}

Error ended_meanwhile(const sandbox::Identity& who) {
  return {fmt::format("'{}' ended while it was to be entered; try again", who.name), ESRCH};
}

// Starts it, unless it runs or another process starts it. Fails with code ESRCH when that one
// ended.
Result<Entered> start_or_find(const Begin& begin_words) {
  auto launched = begin(begin_words);
  if (launched) {
    auto runs = await_running(*launched);
    return runs ? Result<Entered>({launched->running(), true, {}}) : std::unexpected(runs.error());
  }
  if (launched.error().code != sandbox::kAlreadyRunning) {
    return std::unexpected(launched.error());
  }
  auto running = wait_for_start(begin_words.who);
  // One that is looked at has no network, and ends when that is done.
  if (running && running->who.purpose == sandbox::Purpose::kLookedAt && !begin_words.aside &&
      await_departure(*running, kPatience)) {
    return std::unexpected(ended_meanwhile(begin_words.who));
  }
  return running ? Result<Entered>({std::move(*running), false, {}})
                 : std::unexpected(running.error());
}

// Whether the supervisor of one whose guest does not let us in lets it run all the same.
bool goes_on(const sandbox::Running& running) {
  auto client = sandbox::ControlClient::connect(running.control_socket());
  const auto status = client ? client->call("status") : std::unexpected(client.error());
  const auto state = status ? sandbox::text_member(*status, "state") : std::nullopt;
  return state && *state != "stopping";
}

// What the agent socket says first (protocol/opener.hpp).
Result<void> read_greeting(const Fd& socket, const sandbox::Running& running) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + kPatience;
  std::string line;
  char byte = 0;
  while (byte != '\n' && line.size() <= protocol::kMaxGreeting) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd entry{socket.get(), POLLIN, 0};
    const int ready = left > 0 ? ::poll(&entry, 1, static_cast<int>(left)) : 0;
    if (ready == 0) {
      return fail("'{0}' does not let us in; if it is paused, `msb resume {0}` lets it go on",
                  running.who.name);
    }
    // One byte at a time: what follows is the agent's.
    const ssize_t got = ready > 0 ? ::recv(socket.get(), &byte, 1, 0) : -1;
    if (got == 0) {
      return std::unexpected(protocol::ended_before_greeting());
    }
    if (got < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot read from the agent of '{}'", running.who.name);
    }
    if (got > 0 && byte != '\n') {
      line += byte;
    }
  }
  return protocol::is_greeting(line) ? Result<void>() : std::unexpected(protocol::not_a_sandbox());
}

// With the foothold, which msb-vmm, that this becomes, keeps.
Result<int> exec_with(const sandbox::Running& running, const Fd& foothold, const ExecWords& words) {
  if (::fcntl(foothold.get(), F_SETFD, 0) != 0) {
    return fail_errno(errno, "the connection to '{}' cannot be handed on", running.who.name);
  }
  return exec_in(running, words);
}

}  // namespace

Result<int> exec_in(const sandbox::Running& running, const ExecWords& words) {
  const auto around = surroundings(running);
  if (!around) {
    return std::unexpected(around.error());
  }
  const auto command = command_of(*around, words);
  if (!command) {
    return std::unexpected(command.error());
  }
  Words arguments = {"exec", running.agent_socket()};
  for (const std::string& variable : around->environment) {
    if (variable.find('=') != std::string::npos) {  // a mere name would ask for the caller's value
      add(arguments, "--env", variable);
    }
  }
  for (const std::string& variable : words.envs) {
    add(arguments, "--env", variable);
  }
  add(arguments, "--workdir", words.workdir.empty() ? around->directory : words.workdir);
  add(arguments, "--user", words.user.empty() ? around->user : words.user);
  add(arguments, "--timeout", words.timeout);
  if (words.detach) {
    arguments.emplace_back("--detach");
  } else if (!words.no_terminal && at_terminal()) {
    arguments.emplace_back("--tty");
  }
  arguments.emplace_back("--");
  arguments.insert(arguments.end(), command->begin(), command->end());
  return std::unexpected(become_vmm(std::move(arguments)));
}

Result<sandbox::Running> wait_for_start(const sandbox::Identity& who) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + kPatience;
  const sandbox::StateDirectory state(who.state);
  while (Clock::now() < deadline) {
    const auto id = state.running_id();
    if (!id) {
      return std::unexpected(id.error());
    }
    if (!*id) {
      return std::unexpected(ended_meanwhile(who));
    }
    const auto all = sandbox::list_running();
    if (!all) {
      return std::unexpected(all.error());
    }
    // The lock is where a sandbox that has the project can write.
    const auto one = std::ranges::find_if(*all, [&](const sandbox::Running& each) {
      return each.id == **id && each.who.state == who.state;
    });
    if (one != all->end()) {
      const auto client = control(*one);
      return client ? Result<sandbox::Running>(*one) : std::unexpected(client.error());
    }
    // Of another process's progress nothing tells us but its files.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return fail("'{}' is being started by another process, which does not come to an end", who.name);
}

Result<Fd> step_in(const sandbox::Running& running) {
  auto socket = protocol::connect_sandbox(running.agent_socket(), MSB_PORT_AGENT);
  const auto greeted = socket ? read_greeting(*socket, running) : std::unexpected(socket.error());
  if (greeted) {
    return socket;
  }
  if (greeted.error().code == 0 || goes_on(running)) {
    return std::unexpected(greeted.error());
  }
  if (!await_departure(running, kPatience)) {
    return fail("'{}' is ending, and does not come to an end", running.who.name);
  }
  return std::unexpected(ended_meanwhile(running.who));
}

bool await_departure(const sandbox::Running& running, std::chrono::seconds patience) {
  const auto client = sandbox::ControlClient::connect(running.control_socket());
  const auto supervisor = client ? client->supervisor() : std::unexpected(client.error());
  return supervisor ? sandbox::wait_for_end(*supervisor, patience) : !sandbox::is_alive(running);
}

Result<Entered> make_run(Begin begin_words) {
  begin_words.task = {{}, false, true};
  begin_words.background = true;
  std::optional<std::uint32_t>& linger = begin_words.spec.idle_timeout_s;
  linger = begin_words.aside ? kLookLinger : linger.value_or(kLinger);
  begin_words.who.purpose =
      begin_words.aside ? sandbox::Purpose::kLookedAt : sandbox::Purpose::kEntered;
  // One that nobody is in may end before we are.
  for (int attempt = 1;; ++attempt) {
    auto entered = start_or_find(begin_words);
    if (entered) {
      auto foothold = step_in(entered->running);
      if (foothold) {
        entered->foothold = std::move(*foothold);
        return entered;
      }
      entered = std::unexpected(foothold.error());
    }
    if (entered.error().code != ESRCH || attempt == kAttempts) {
      return entered;
    }
  }
}

Result<int> enter_running(const sandbox::Running& running, const ExecWords& words) {
  const auto foothold = step_in(running);
  return foothold ? exec_with(running, *foothold, words) : std::unexpected(foothold.error());
}

Result<int> enter(Begin begin_words, const ExecWords& words) {
  const auto entered = make_run(std::move(begin_words));
  return entered ? exec_with(entered->running, entered->foothold, words)
                 : std::unexpected(entered.error());
}

}  // namespace msb::cli
