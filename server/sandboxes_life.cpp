// SPDX-License-Identifier: Apache-2.0
// How sandboxes of the server begin and end: starting, and how the end of a supervisor is noticed.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "oci/printable.hpp"
#include "oci/settings.hpp"
#include "oci/store/store.hpp"
#include "sandbox/compose.hpp"
#include "sandbox/control_client.hpp"
#include "sandbox/files.hpp"
#include "sandbox/image_choice.hpp"
#include "server/sandboxes.hpp"

namespace msb::server {

namespace {

using std::chrono::seconds;

// For a sandbox to run, once its image is here, and when it has to be pulled: those of the 0.2
// line.
constexpr seconds kStartPatience{60};
constexpr seconds kPullPatience{180};
// For one that was told to stop, and then for one that was killed.
constexpr seconds kStopPatience{60};
constexpr seconds kKillPatience{40};
// Of a supervisor whose command has ended.
constexpr seconds kEndPatience{10};

std::vector<std::string> words_of(const sandbox::Json& document, const char* name) {
  std::vector<std::string> words;
  if (const auto found = document.find(name); found != document.end() && found->is_array()) {
    for (const auto& word : *found) {
      if (word.is_string()) {
        words.push_back(word.get<std::string>());
      }
    }
  }
  return words;
}

std::vector<PublishedPort> published_of(const sandbox::Json& network) {
  std::vector<PublishedPort> ports;
  const auto found = network.find("published");
  if (found == network.end() || !found->is_array()) {
    return ports;
  }
  for (const auto& port : *found) {
    ports.push_back(
        {sandbox::text_member(port, "protocol").value_or(""),
         sandbox::text_member(port, "address").value_or(""),
         static_cast<std::uint16_t>(sandbox::number_member(port, "host_port").value_or(0)),
         static_cast<std::uint16_t>(sandbox::number_member(port, "guest_port").value_or(0))});
  }
  return ports;
}

// What a start needs to know, of which a worker makes all that blocks.
struct LaunchWords {
  sandbox::Identity who;
  Record record;
  std::string home;
};

Result<sandbox::ImageChoice> choose(const LaunchWords& words) {
  const auto path = oci::settings_path();
  const auto settings =
      path ? oci::load_settings(*path) : Result<oci::Settings>(std::unexpected(path.error()));
  if (!settings) {
    return std::unexpected(settings.error());
  }
  auto store = oci::Store::open(words.home);
  if (!store) {
    return std::unexpected(store.error());
  }
  const sandbox::StateDirectory state(words.who.state);
  return sandbox::choose_image(*store, *settings, words.record.spec.image, "/", &state,
                               "remove the sandbox");
}

Result<sandbox::Task> task_of(const Record& record) {
  sandbox::TaskWords words;
  words.exec = record.exec;
  const bool runs = record.image_command || !record.exec.empty() || !record.spec.command.empty() ||
                    record.spec.scripts.contains("start");
  return runs ? sandbox::choose_task(record.spec, words, true)
              : Result<sandbox::Task>(sandbox::Task{{}, false, true, false});
}

Outcome<sandbox::Launched> launch_blocking(const LaunchWords& words,
                                           const sandbox::ImageChoice& image,
                                           const Settings& settings) {
  sandbox::SandboxSpec spec = words.record.spec;
  if (const auto most = words.record.lifetime_s) {
    spec.timeout_s = std::min(spec.timeout_s.value_or(*most), *most);
  }
  auto options = sandbox::compose(words.who, spec, "/", image, words.home);
  if (!options) {
    return refuse(Reason::kInvalid, options.error());
  }
  // What a project's Sandboxfile says is the operator's own word.
  if (!words.record.declared) {
    if (auto allowed = check_volumes(options->volumes, settings); !allowed) {
      return std::unexpected(allowed.error());
    }
  }
  auto task = task_of(words.record);
  if (!task) {
    return refuse(Reason::kInvalid, task.error());
  }
  options->task = std::move(*task);
  options->background = words.record.session.empty();
  options->bound = !options->background;  // its session ends with this process
  options->pin = image.pin;
  // Again, as another program may have removed it since it was written.
  options->keep = [record = words.record](const sandbox::StateDirectory& state) {
    return write_record(state, record);
  };
  auto launched = sandbox::launch(std::move(*options));
  if (!launched) {
    return refuse(
        launched.error().code == sandbox::kAlreadyRunning ? Reason::kConflict : Reason::kFailed,
        launched.error());
  }
  return std::move(*launched);
}

Result<sandbox::ControlClient::Json> ask_supervisor(const sandbox::Running& running,
                                                    const char* method) {
  auto client = sandbox::ControlClient::connect(running.control_socket());
  return client ? client->call(method) : std::unexpected(client.error());
}

}  // namespace

// To be called with its gate's pass and the stage kStarting. When it fails it does not run.
Async<Outcome<void>> Sandboxes::bring_up(Served served, PullProgress progress) {
  ++starting_;
  struct Leave {
    std::size_t& starting;
    ~Leave() { --starting; }
  };
  const Leave leave{starting_};
  const auto begun = Signal::Clock::now();
  bool pulled = false;
  auto launched = co_await launch(served, std::move(progress), pulled);
  if (!launched) {
    served->stage = Stage::kStopped;
    co_return std::unexpected(launched.error());
  }
  served->running = launched->running();
  served->elsewhere = false;
  served->supervisor =
      std::make_shared<Fd>(::fcntl(launched->supervisor().process.get(), F_DUPFD_CLOEXEC, 0));
  const auto shared = std::make_shared<sandbox::Launched>(std::move(*launched));
  asio::co_spawn(io_, watch_child(served, shared), Unattended());
  const seconds limit = pulled ? kPullPatience : kStartPatience;
  auto up = co_await await_running(served, shared, begun + limit);
  if (up) {
    auto connected = co_await connect(served);
    if (!connected && served->stage != Stage::kStopped) {
      // A supervisor whose command has ended answers no more, and ends soon.
      (void)co_await served->ended.wait(Signal::Clock::now() + kEndPatience);
    }
    if (connected) {
      served->stage = *connected == Stage::kPaused ? Stage::kPaused : Stage::kRunning;
      co_return up;
    } else if (served->stage == Stage::kStopped) {
      // Its command has ended already, and that is no failure of the start.
      co_return up;
    } else {
      up = refuse(Reason::kFailed, connected.error());
    }
  }
  if (up.error().reason == Reason::kTimeout) {
    up.error().message = fmt::format(
        "timed out waiting for sandbox '{}' to start: it did not run within {} s, and was stopped",
        served->name, limit.count());
  }
  if (served->stage != Stage::kStopped) {
    co_await end(served, true);
  }
  co_return up;
}

Async<Outcome<sandbox::Launched>> Sandboxes::launch(Served served, PullProgress progress,
                                                    bool& pulled) {
  served->record.keeper = options_.keeper.id();
  const LaunchWords words{{sandbox::Kind::kServed, served->name, "", served->directory.path(), {}},
                          served->record,
                          options_.home};
  const auto find = [words, ended = served->running.id]() -> Outcome<sandbox::ImageChoice> {
    const sandbox::StateDirectory state(words.who.state);
    if (auto made = state.make(); !made) {
      return refuse(Reason::kFailed, made.error());
    }
    // A directory with a lock is what a sandbox has kept, and can be removed, whenever this ends.
    const auto locked = state.lock_when_free(ended);
    if (!locked) {
      return refuse(Reason::kFailed, locked.error());
    }
    if (!*locked) {
      return refuse(Reason::kConflict, "'{}' was started by another program", words.who.name);
    }
    const auto there = read_record(state);
    if (there && *there && (*there)->id != words.record.id) {
      return refuse(Reason::kConflict, "there is a sandbox '{}' already", words.who.name);
    }
    auto choice = choose(words);
    if (!choice) {
      const bool other = choice.error().code == sandbox::kOtherImage;
      return refuse(other ? Reason::kConflict : Reason::kFailed, choice.error());
    }
    // Only now: what does not fit what it has kept is no new record of it.
    if (auto written = write_record(state, words.record); !written) {
      return refuse(Reason::kFailed, written.error());
    }
    return std::move(*choice);
  };
  auto image = co_await workers_.run(find);
  if (image && !image->missing.empty()) {
    pulled = true;
    auto fetched = co_await pulls_.pull(image->missing, std::move(progress));
    if (!fetched && !image->pin.digest.empty()) {
      fetched.error().message = fmt::format(
          "the image '{}' that '{}' was made of is not here any more: load it again, or remove the "
          "sandbox; it cannot be pulled: {}",
          oci::printable(image->pin.reference), served->name, fetched.error().message);
    }
    if (!fetched) {
      co_return std::unexpected(fetched.error());
    }
    image = co_await workers_.run(find);
    if (image && !image->missing.empty()) {
      co_return refuse(Reason::kFailed, "the image '{}' was removed while it was to be started",
                       oci::printable(words.record.spec.image));
    }
  }
  if (!image) {
    co_return std::unexpected(image.error());
  }
  const auto start = [words, image = *image, settings = options_.settings] {
    return launch_blocking(words, image, settings);
  };
  co_return co_await workers_.run(start);
}

Async<Outcome<void>> Sandboxes::await_running(Served served,
                                              std::shared_ptr<sandbox::Launched> launched,
                                              Signal::Clock::time_point deadline) {
  struct Watch {
    std::optional<sandbox::Launched::Json> event;
    bool ended = false;
    Signal come;
  };
  const auto watch = std::make_shared<Watch>();
  const auto follow = [](std::shared_ptr<sandbox::Launched> one,
                         std::shared_ptr<Watch> told) -> Async<> {
    while (!told->event) {
      co_await await_readable(one->events().get());
      // It writes whole lines.
      auto event = one->next_event(std::chrono::milliseconds(100));
      if (!event) {
        break;
      }
      const auto word = sandbox::text_member(*event, "event");
      if (word == "running" || word == "ended") {
        told->event = std::move(*event);
      }
    }
    told->ended = true;
    told->come.notify();
  };
  asio::co_spawn(io_, follow(launched, watch), Unattended());
  while (!watch->ended) {
    const bool come = co_await watch->come.wait(deadline);
    if (!come) {
      co_return refuse(Reason::kTimeout, "it did not run in time");
    }
  }
  if (!watch->event) {
    co_return refuse(Reason::kFailed, "the supervisor of '{}' ended before it ran", served->name);
  }
  if (sandbox::text_member(*watch->event, "event") == "running") {
    co_return Outcome<void>();
  }
  const std::string message = sandbox::text_member(*watch->event, "message").value_or("");
  co_return refuse(Reason::kFailed, "{}",
                   message.empty()
                       ? fmt::format("'{}' ended at once, with status {}", served->name,
                                     sandbox::number_member(*watch->event, "status").value_or(0))
                       : message);
}

// What its supervisor says of it, also what its stage is.
Async<Result<Stage>> Sandboxes::connect(Served served) {
  const sandbox::Running running = served->running;
  const auto ask = [running] { return ask_supervisor(running, "status"); };
  const auto status = co_await workers_.run(ask);
  if (!status) {
    co_return std::unexpected(status.error());
  }
  if (served->stage == Stage::kStopped) {
    co_return fail("'{}' has ended", served->name);
  }
  Surroundings around;
  around.environment = words_of(*status, "environment");
  around.directory = sandbox::text_member(*status, "directory").value_or("");
  around.user = sandbox::text_member(*status, "user").value_or("");
  served->started_ms = sandbox::number_member(*status, "started_ms").value_or(0);
  if (const auto network = status->find("network"); network != status->end()) {
    served->published = published_of(*network);
  }
  served->guest = std::make_shared<Guest>(guests_, running.agent_socket(), std::move(around));
  served->code = std::make_unique<CodeSessions>(io_.get_executor(), served->guest);
  served->measured.reset();
  const auto state = sandbox::text_member(*status, "state");
  co_return state == "paused" ? Stage::kPaused
  : state == "starting"       ? Stage::kStarting
                              : Stage::kRunning;
}

// Of one that this server has started, which has to be waited for.
Async<> Sandboxes::watch_child(Served served, std::shared_ptr<sandbox::Launched> launched) {
  co_await await_readable(launched->supervisor().process.get());
  const auto finish = [launched] { return launched->finish(); };
  co_await workers_.run(finish);
  on_end(served);
}

void Sandboxes::on_end(const Served& served) {
  served->stage = Stage::kStopped;
  served->code.reset();
  served->guest.reset();
  served->published.clear();
  served->started_ms = 0;
  served->ended.notify();
  if (served->record.ephemeral && !served->removed) {
    asio::co_spawn(io_, sweep(served), Unattended());
  }
}

// Removes an ephemeral one that has ended.
Async<> Sandboxes::sweep(Served served) {
  const auto pass = co_await served->gate.enter();
  if (served->stage == Stage::kStopped && !served->removed) {
    co_await discard(served);
  }
}

// Ends one that runs, with its gate's pass.
Async<Outcome<void>> Sandboxes::end(Served served, bool at_once) {
  const sandbox::Running running = served->running;
  served->stage = Stage::kStopping;
  const auto supervisor = served->supervisor;
  const auto await_end = [](Served one, seconds patience) -> Async<> {
    const auto deadline = Signal::Clock::now() + patience;
    bool come = true;
    while (come && one->stage != Stage::kStopped) {
      come = co_await one->ended.wait(deadline);
    }
  };
  if (!at_once) {
    const auto ask = [running] { return ask_supervisor(running, "stop"); };
    const auto asked = co_await workers_.run(ask);
    const seconds patience = asked ? kStopPatience : seconds(0);
    co_await await_end(served, patience);
  }
  if (served->stage != Stage::kStopped) {
    const auto ask = [running] { return ask_supervisor(running, "kill"); };
    const auto asked = co_await workers_.run(ask);
    const seconds patience = asked ? kKillPatience : seconds(0);
    co_await await_end(served, patience);
  }
  if (served->stage != Stage::kStopped && supervisor && *supervisor) {
    // It hangs, and its sandbox with it.
    ::syscall(SYS_pidfd_send_signal, supervisor->get(), SIGKILL, nullptr, 0);
    co_await await_end(served, kKillPatience);
  }
  if (served->stage != Stage::kStopped) {
    co_return refuse(Reason::kFailed, "'{}' does not end", served->name);
  }
  co_return Outcome<void>();
}

Async<Outcome<void>> Sandboxes::set_paused(const Key& key, Served served, bool paused) {
  if (auto writable = check_writable(key); !writable) {
    co_return writable;
  }
  const auto work = [](Sandboxes* self, Served one, bool hold) -> Async<Outcome<void>> {
    const auto pass = co_await one->gate.enter();
    if (one->stage != Stage::kRunning && one->stage != Stage::kPaused) {
      co_return refuse(Reason::kConflict, "'{}' is {}", one->name, stage_word(one->stage));
    }
    const sandbox::Running running = one->running;
    const auto ask = [running, hold] { return ask_supervisor(running, hold ? "pause" : "resume"); };
    const auto done = co_await self->workers_.run(ask);
    if (!done) {
      co_return refuse(Reason::kFailed, done.error());
    }
    if (one->stage != Stage::kStopped) {
      one->stage = hold ? Stage::kPaused : Stage::kRunning;
    }
    co_return Outcome<void>();
  };
  co_return co_await shield(work(this, std::move(served), paused));
}

}  // namespace msb::server
