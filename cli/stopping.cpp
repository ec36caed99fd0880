// SPDX-License-Identifier: Apache-2.0
#include "cli/stopping.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <utility>

#include "cli/context.hpp"
#include "cli/notice.hpp"
#include "cli/target.hpp"
#include "sandbox/control_client.hpp"

namespace msb::cli {

namespace {

using std::chrono::seconds;

// What a supervisor takes beyond its sandbox's grace, at most.
constexpr seconds kMargin{30};
constexpr seconds kMaxGrace{600};

struct Ending {
  std::string name;
  Fd supervisor;
};

Result<Ending> ask_to_end(const sandbox::Running& running, const StopWords& words) {
  auto client = control(running);
  auto supervisor = client ? client->supervisor() : Result<Fd>(std::unexpected(client.error()));
  if (!supervisor) {
    return std::unexpected(supervisor.error());
  }
  sandbox::ControlClient::Json parameters = sandbox::ControlClient::Json::object();
  if (words.timeout_s) {
    parameters["timeout_s"] = *words.timeout_s;
  }
  if (!words.signal.empty()) {
    parameters["signal"] = words.signal;
  }
  const auto asked = words.kill ? client->call("kill") : client->call("stop", parameters);
  if (!asked && asked.error().code == ETIMEDOUT) {
    // It hangs, and its sandbox with it.
    ::syscall(SYS_pidfd_send_signal, supervisor->get(), SIGKILL, nullptr, 0);
  } else if (!asked && !sandbox::wait_for_end(*supervisor, seconds(1))) {
    return std::unexpected(asked.error().within(running.who.name));
  }
  return Ending{running.who.name, std::move(*supervisor)};
}

Result<void> await_end(const Ending& ending, seconds patience) {
  Notice notice("Stopping " + ending.name);
  if (ending.supervisor && !sandbox::wait_for_end(ending.supervisor, kSoon)) {
    notice.show();
  }
  if (!ending.supervisor || sandbox::wait_for_end(ending.supervisor, patience)) {
    return {};
  }
  return fail("'{}' does not end; `msb kill {}` ends it at once", ending.name, ending.name);
}

}  // namespace

Result<void> stop_all(const std::vector<sandbox::Running>& sandboxes, const StopWords& words) {
  std::vector<Ending> endings;
  std::optional<Error> failed;
  for (const sandbox::Running& running : sandboxes) {
    auto ending = ask_to_end(running, words);
    if (ending) {
      endings.push_back(std::move(*ending));
    } else if (ending.error().code == ESRCH) {
      endings.push_back({running.who.name, {}});  // by itself, just now
    } else if (!failed) {
      failed = ending.error();
    }
  }
  const seconds patience = (words.timeout_s ? seconds(*words.timeout_s) : kMaxGrace) + kMargin;
  for (const Ending& ending : endings) {
    if (auto awaited = await_end(ending, patience); !awaited) {
      return awaited;
    }
    if (auto printed = print(fmt::format("{} is down\n", ending.name)); !printed) {
      return printed;
    }
  }
  sandbox::clear_dead();
  return failed ? Result<void>(std::unexpected(*failed)) : Result<void>();
}

}  // namespace msb::cli
