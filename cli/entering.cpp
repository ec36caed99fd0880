// SPDX-License-Identifier: Apache-2.0
#include "cli/entering.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>

#include "sandbox/files.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::cli {

namespace {

// How long a sandbox that was started to be entered waits for the next one who does.
constexpr std::uint32_t kLinger = 3;  // seconds

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
  if (!words.image_command) {
    return words.command;
  }
  Words command = around.entrypoint;
  command.insert(command.end(), around.image_command.begin(), around.image_command.end());
  command.insert(command.end(), words.command.begin(), words.command.end());
  if (command.empty()) {
    return fail("the image names no command; give one after `--`");
  }
  return command;
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
  const auto deadline = Clock::now() + std::chrono::seconds(60);
  const sandbox::StateDirectory state(who.state);
  while (Clock::now() < deadline) {
    const auto id = state.running_id();
    if (!id) {
      return std::unexpected(id.error());
    }
    if (!*id) {
      return fail("'{}' ended while it was to be entered; try again", who.name);
    }
    const auto all = sandbox::list_running();
    if (!all) {
      return std::unexpected(all.error());
    }
    for (const sandbox::Running& one : *all) {
      if (one.who.state == who.state && sandbox::ControlClient::connect(one.control_socket())) {
        return one;
      }
    }
    // Of another process's progress nothing tells us but its files.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return fail("'{}' is being started by another process, which does not come to an end", who.name);
}

Result<Entered> make_run(Begin begin_words) {
  const sandbox::Identity who = begin_words.who;
  begin_words.task = {{}, false, true};
  begin_words.background = true;
  std::optional<std::uint32_t>& linger = begin_words.spec.idle_timeout_s;
  linger = begin_words.aside ? kLinger : linger.value_or(kLinger);
  auto launched = begin(begin_words);
  if (launched) {
    auto runs = await_running(*launched);
    return runs ? Result<Entered>({launched->running(), true}) : std::unexpected(runs.error());
  }
  if (launched.error().code != sandbox::kAlreadyRunning) {
    return std::unexpected(launched.error());
  }
  auto running = wait_for_start(who);
  return running ? Result<Entered>({std::move(*running), false}) : std::unexpected(running.error());
}

Result<int> enter(Begin begin_words, const ExecWords& words) {
  const auto entered = make_run(std::move(begin_words));
  return entered ? exec_in(entered->running, words) : std::unexpected(entered.error());
}

}  // namespace msb::cli
