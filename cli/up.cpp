// SPDX-License-Identifier: Apache-2.0
#include "cli/up.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <ranges>
#include <set>
#include <utility>

#include "base/publish.hpp"
#include "cli/agreement.hpp"
#include "cli/context.hpp"
#include "cli/entering.hpp"
#include "cli/notice.hpp"
#include "cli/stopping.hpp"
#include "oci/printable.hpp"
#include "sandbox/consent.hpp"
#include "sandbox/dependency_order.hpp"
#include "sandbox/files.hpp"
#include "sandbox/readiness.hpp"

namespace msb::cli {

namespace {

using sandbox::Project;
using Entry = sandbox::Sandboxfile::Entry;

// How long a sandbox may take until it listens on the ports that it publishes.
constexpr std::chrono::seconds kReady{60};
// How long one that publishes none and has dependents is waited for to listen on any: it may be no
// server at all.
constexpr std::chrono::seconds kServing{20};
// How long one that was entered is waited for: whoever was in it may have left just now.
constexpr std::chrono::seconds kLeaving{15};
constexpr int kAttempts = 3;

std::set<std::uint16_t> published_ports(const sandbox::SandboxSpec& spec) {
  std::set<std::uint16_t> ports;
  for (const std::string& word : spec.ports) {
    const auto port = parse_publish(word);
    if (port && port->transport == Transport::kTcp) {
      ports.insert(port->guest_port);
    }
  }
  return ports;
}

// "Sandboxfile:3:12", where something of it was written.
std::string place(const Project& project, const sandbox::Position& position) {
  return fmt::format("{}:{}:{}", project.shown, position.line, position.column);
}

// What the Sandboxfile names has to be there, which is told with its place.
Result<void> check_paths(const Project& project, const Entry& entry) {
  for (std::size_t i = 0; i < entry.spec.volumes.size(); ++i) {
    const auto opened = sandbox::open_volume(entry.spec.volumes[i], project.directory);
    if (!opened) {
      return std::unexpected(opened.error().within(place(project, entry.places.volumes[i])));
    }
  }
  for (std::size_t i = 0; i < entry.spec.env_files.size(); ++i) {
    const auto path = std::filesystem::path(project.directory) / entry.spec.env_files[i];
    if (::access(path.c_str(), R_OK) != 0) {
      return fail_errno(errno, "{}: cannot read the variables in '{}'",
                        place(project, entry.places.env_files[i]), oci::printable(path.string()));
    }
  }
  return {};
}

// An error of one's start. The supervisor tells of a port by its numbers.
Error locate(const Project& project, const Entry& entry, const Error& error) {
  if (error.message.starts_with(project.shown + ":")) {
    return error;
  }
  for (std::size_t i = 0; i < entry.spec.ports.size(); ++i) {
    const auto port = parse_publish(entry.spec.ports[i]);
    if (port && error.message.find(fmt::format("port {} of {}", port->host.port(),
                                               port->host.text())) != std::string::npos) {
      return error.within(fmt::format("{}: {}", place(project, entry.places.ports[i]), entry.name));
    }
  }
  return error.within(entry.name);
}

// The ports at which a dependency is reached: those that it publishes, and those that it listens
// on.
Result<std::vector<std::string>> hosts_of(const Project& project, const Entry& entry) {
  std::vector<std::string> hosts;
  for (const std::string& name : entry.spec.depends_on) {
    const auto dependency = project.get(name);
    const auto socket = sandbox::lasting_agent_socket(project.identity(name).state);
    if (!dependency || !socket) {
      return std::unexpected(dependency ? socket.error() : dependency.error());
    }
    std::set<std::uint16_t> ports = published_ports((*dependency)->spec);
    if (const auto listening = sandbox::listening_ports(*socket)) {
      ports.insert(listening->begin(), listening->end());
    }
    for (const std::uint16_t port : ports) {
      hosts.push_back(fmt::format("{}={}:{}", name, *socket, port));
    }
  }
  return hosts;
}

// Where a browser or a client finds it.
std::string addresses_of(const sandbox::Launched::Json& running) {
  std::string text;
  const auto published = running.find("published");
  if (published == running.end() || !published->is_array()) {
    return text;
  }
  for (const auto& port : *published) {
    const std::string address = sandbox::text_member(port, "address").value_or("");
    const bool six = address.find(':') != std::string::npos;
    text += fmt::format("{}{}{}{}:{} -> {}", text.empty() ? "" : ", ", six ? "[" : "", address,
                        six ? "]" : "", sandbox::number_member(port, "host_port").value_or(0),
                        sandbox::number_member(port, "guest_port").value_or(0));
    if (sandbox::text_member(port, "protocol") == "udp") {
      text += "/udp";
    }
  }
  return text;
}

// One that is on its way.
struct Coming {
  const Entry* entry;
  sandbox::Launched launched;
};

bool has_dependents(const Project& project, const std::string& name) {
  return std::ranges::any_of(project.content.sandboxes, [&](const Entry& other) {
    return std::ranges::count(other.spec.depends_on, name) > 0;
  });
}

Result<void> await_readiness(const Project& project, const Entry& entry,
                             const sandbox::Running& running) {
  const auto ports = published_ports(entry.spec);
  const std::string socket = running.agent_socket();
  Notice notice(fmt::format("Waiting until {} is ready", entry.name));
  if (!ports.empty()) {
    auto listening = sandbox::wait_until_listening(socket, ports, kSoon);
    if (!listening && listening.error().code == ETIMEDOUT) {
      notice.show();
      listening = sandbox::wait_until_listening(socket, ports, kReady);
    }
    return listening;
  }
  const auto task = sandbox::choose_task(entry.spec, {}, true);
  if (!has_dependents(project, entry.name) || (task && task->idle)) {
    return {};
  }
  auto serving = sandbox::wait_until_serving(socket, kSoon);
  if (serving && !*serving) {
    notice.show();
    serving = sandbox::wait_until_serving(socket, kServing);
  }
  return serving ? Result<void>() : std::unexpected(serving.error());
}

Result<void> finish_start(const Project& project, Coming& coming) {
  const std::string& name = coming.entry->name;
  sandbox::Launched::Json running;
  if (auto runs = await_running(coming.launched, &running); !runs) {
    return std::unexpected(locate(project, *coming.entry, runs.error()));
  }
  if (auto ready = await_readiness(project, *coming.entry, coming.launched.running()); !ready) {
    const auto record = sandbox::StateDirectory(project.identity(name).state).exit_record();
    if (record && *record) {
      return fail("{}: it ended with status {} before it was ready; see `msb log {}`", name,
                  (*record)->status, name);
    }
    return fail("{}: {}; see `msb log {}`", name, ready.error().message, name);
  }
  const std::string addresses = addresses_of(running);
  return print(fmt::format("{} is up{}\n", name, addresses.empty() ? "" : ", at " + addresses));
}

// One that runs already, or that another process is starting.
Result<void> find_ready(const Project& project, const Entry& entry) {
  const auto running = wait_for_start(project.identity(entry.name));
  const auto ready = running ? await_readiness(project, entry, *running)
                             : Result<void>(std::unexpected(running.error()));
  if (!ready) {
    return fail("{}: {}; see `msb log {}`", entry.name, ready.error().message, entry.name);
  }
  return print(fmt::format("{} is running already\n", entry.name));
}

// One that was only entered, or is about to end, is not up: it ends by itself, and then it can be
// started. False when it is up.
Result<bool> await_leaving(const Project& project, const Entry& entry) {
  const auto running = wait_for_start(project.identity(entry.name));
  if (!running) {
    return running.error().code == ESRCH ? Result<bool>(true) : std::unexpected(running.error());
  }
  auto client = control(*running);
  const auto status = client ? client->call("status") : std::unexpected(client.error());
  const bool ending = !status || sandbox::text_member(*status, "state") == "stopping";
  if (running->who.purpose == sandbox::Purpose::kRun && !ending) {
    return false;
  }
  Notice notice(fmt::format("Waiting until {} ends", entry.name));
  notice.show();
  if (await_departure(*running, kLeaving)) {
    return true;
  }
  return fail(
      "somebody is in it, by `msb shell` for example, and it runs without its command; leave "
      "it first, or `msb stop {}`",
      entry.name);
}

// begin(), unless it is up already: then it fails with code kAlreadyRunning.
Result<sandbox::Launched> begin_unless_up(const Project& project, const Entry& entry,
                                          const Begin& begin_words) {
  auto launched = begin(begin_words);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (launched || launched.error().code != sandbox::kAlreadyRunning) {
      break;
    }
    const auto left = await_leaving(project, entry);
    if (!left) {
      return std::unexpected(left.error());
    }
    if (!*left) {
      break;
    }
    launched = begin(begin_words);
  }
  return launched;
}

// Those of one level start together.
Result<void> start_level(const Project& project, const std::vector<std::string>& names,
                         const UpWords& words) {
  std::vector<Coming> coming;
  std::vector<const Entry*> already;
  std::optional<Error> failed;
  for (const std::string& name : names) {
    const auto entry = project.get(name);
    auto begin_words = entry ? begin_of(project, **entry, words) : std::unexpected(entry.error());
    if (!begin_words) {
      failed = begin_words.error();
      break;
    }
    auto task = sandbox::choose_task((*entry)->spec, {}, true);
    if (!task) {
      failed = task.error().within(name);
      break;
    }
    begin_words->task = std::move(*task);
    begin_words->background = true;
    auto launched = begin_unless_up(project, **entry, *begin_words);
    if (launched) {
      coming.push_back({*entry, std::move(*launched)});
    } else if (launched.error().code == sandbox::kAlreadyRunning) {
      already.push_back(*entry);
    } else {
      failed = locate(project, **entry, launched.error());
      break;
    }
  }
  for (const Entry* entry : already) {
    if (auto found = find_ready(project, *entry); !found && !failed) {
      failed = found.error();
    }
  }
  // Also when one failed: the others run, and their users should know.
  for (Coming& one : coming) {
    if (auto started = finish_start(project, one); !started && !failed) {
      failed = started.error();
    }
  }
  return failed ? Result<void>(std::unexpected(*failed)) : Result<void>();
}

}  // namespace

Result<Begin> begin_of(const Project& project, const Entry& entry, const UpWords& words) {
  if (auto checked = check_paths(project, entry); !checked) {
    return std::unexpected(checked.error());
  }
  if (auto agreed = agree(project, entry, words.yes); !agreed) {
    return std::unexpected(agreed.error());
  }
  if (auto made = sandbox::make_state_folder(project); !made) {
    return std::unexpected(made.error());
  }
  auto hosts = hosts_of(project, entry);
  if (!hosts) {
    return std::unexpected(hosts.error());
  }
  Begin begin_words;
  begin_words.who = project.identity(entry.name);
  begin_words.spec = entry.spec;
  begin_words.image_place = place(project, entry.places.image);
  begin_words.directory = project.directory;
  begin_words.hosts = std::move(*hosts);
  begin_words.debug = words.debug;
  return begin_words;
}

Result<void> bring_up(const Project& project, const UpWords& words, const std::string& but_for) {
  const auto levels = sandbox::dependency_levels(project.content, words.names);
  if (!levels) {
    return std::unexpected(levels.error());
  }
  for (std::vector<std::string> level : *levels) {
    std::erase(level, but_for);
    if (auto started = start_level(project, level, words); !started) {
      return started;
    }
  }
  return {};
}

Result<void> up(const UpWords& words) {
  const auto project = open_project(words.file);
  if (!project) {
    return std::unexpected(project.error());
  }
  if (project->content.sandboxes.empty()) {
    return fail("{} declares no sandbox; `msb add NAME --image IMAGE` adds one", project->shown);
  }
  return bring_up(*project, words);
}

Result<void> down(const UpWords& words) {
  const auto project = open_project(words.file);
  if (!project) {
    return std::unexpected(project.error());
  }
  const auto levels = sandbox::dependency_levels(project->content, {});
  if (!levels) {
    return std::unexpected(levels.error());
  }
  for (const std::string& name : words.names) {
    if (const auto entry = project->get(name); !entry) {
      return std::unexpected(entry.error());
    }
  }
  std::optional<Error> failed;
  // Whoever depends on another goes first.
  for (const auto& level : std::views::reverse(*levels)) {
    std::vector<sandbox::Running> going;
    for (const std::string& name : level) {
      const bool meant = words.names.empty() || std::ranges::count(words.names, name) > 0;
      const sandbox::Identity who = project->identity(name);
      const auto id = sandbox::StateDirectory(who.state).running_id();
      if (!id) {
        return std::unexpected(id.error());
      }
      if (!meant || !*id) {
        continue;
      }
      const auto running = wait_for_start(who);
      if (running) {
        going.push_back(*running);
      } else if (running.error().code != ESRCH && !failed) {
        failed = running.error();
      }
    }
    if (auto stopped = stop_all(going, {}); !stopped) {
      return stopped;
    }
  }
  return failed ? Result<void>(std::unexpected(*failed)) : Result<void>();
}

Result<void> apply(const UpWords& words) {
  const auto project = open_project(words.file);
  const auto targets = project ? Targets::look(project->file) : std::unexpected(project.error());
  if (!targets) {
    return std::unexpected(targets.error());
  }
  std::vector<sandbox::Running> superfluous;
  for (const sandbox::Running& one : targets->all()) {
    if (one.who.kind == sandbox::Kind::kProject && one.who.project == project->directory &&
        project->find(one.who.name) == nullptr) {
      superfluous.push_back(one);
    }
  }
  if (auto stopped = stop_all(superfluous, {}); !stopped) {
    return stopped;
  }
  return bring_up(*project, words);
}

}  // namespace msb::cli
