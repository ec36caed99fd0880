// SPDX-License-Identifier: Apache-2.0
#include "server/sandboxes.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/detached.hpp>
#include <csignal>
#include <filesystem>
#include <system_error>
#include <utility>

#include "oci/printable.hpp"
#include "oci/settings.hpp"
#include "oci/store/store.hpp"
#include "sandbox/compose.hpp"
#include "sandbox/control_client.hpp"
#include "sandbox/disk.hpp"
#include "sandbox/files.hpp"
#include "sandbox/image_choice.hpp"
#include "sandbox/metrics_sampler.hpp"
#include "server/presence.hpp"

namespace msb::server {

namespace {

using std::chrono::seconds;

constexpr std::size_t kMaxStarting = 32;
constexpr std::size_t kMaxSandboxes = 4096;  // also of those that do not run
constexpr std::uint32_t kDefaultMemoryMib = 512;
// For a sandbox to run, once its image is here, and when it has to be pulled: those of the 0.2
// line.
constexpr seconds kStartPatience{60};
constexpr seconds kPullPatience{180};
// For one that was told to stop, and then for one that was killed.
constexpr seconds kStopPatience{60};
constexpr seconds kKillPatience{40};

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string made_up_name() {
  std::uint32_t number = 0;
  while (::getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) {
  }
  return fmt::format("sandbox-{:08x}", number);
}

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

// What is there and does not run, or runs, when the server starts.
struct Found {
  std::string space;
  std::string name;
  std::string state;
  Result<std::optional<Record>> record;
  std::optional<sandbox::Running> running;
};

std::vector<Found> look(const std::string& folder) {
  std::vector<Found> all;
  const auto running = sandbox::list_running();
  std::error_code error;
  for (const auto& space : std::filesystem::directory_iterator(folder, error)) {
    std::error_code inner;
    for (const auto& one : std::filesystem::directory_iterator(space.path(), inner)) {
      const std::string name = one.path().filename().string();
      if (sandbox::is_remainder(name) || !sandbox::check_name(name)) {
        continue;
      }
      const std::string path = one.path().string();
      Found found{space.path().filename().string(), name, path,
                  read_record(sandbox::StateDirectory(path)), std::nullopt};
      if (running) {
        for (const sandbox::Running& candidate : *running) {
          if (candidate.who.state == path) {
            found.running = candidate;
          }
        }
      }
      all.push_back(std::move(found));
    }
  }
  return all;
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
  return sandbox::choose_image(*store, *settings, words.record.spec.image, "/", &state);
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
  auto options = sandbox::compose(words.who, words.record.spec, "/", image, words.home);
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

Result<Fd> supervisor_of(const sandbox::Running& running) {
  const auto client = sandbox::ControlClient::connect(running.control_socket());
  return client ? client->supervisor() : Result<Fd>(std::unexpected(client.error()));
}

}  // namespace

std::string_view stage_word(Stage stage) {
  switch (stage) {
    case Stage::kStopped:
      return "stopped";
    case Stage::kStarting:
      return "starting";
    case Stage::kRunning:
      return "running";
    case Stage::kPaused:
      return "paused";
    case Stage::kStopping:
      break;
  }
  return "stopping";
}

Sandboxes::Sandboxes(asio::io_context& io, AsioIo& guests, Workers& workers, Options options)
    : io_(io),
      guests_(guests),
      workers_(workers),
      options_(std::move(options)),
      pulls_(io, workers) {}

Sandboxes::~Sandboxes() = default;

std::string Sandboxes::state_of(const std::string& space, const std::string& name) const {
  return fmt::format("{}/sandboxes/{}/{}", server_folder(options_.home), space, name);
}

Async<> Sandboxes::adopt(std::vector<std::string>& notices) {
  const std::string folder = server_folder(options_.home) + "/sandboxes";
  const auto look_there = [folder] { return look(folder); };
  const auto all = co_await workers_.run(look_there);
  std::vector<Served> superfluous;
  for (const Found& found : all) {
    if (!found.record) {
      notices.push_back(found.record.error().message);
      continue;
    }
    if (!*found.record) {
      continue;  // it was being made when the server was killed, and is swept below
    }
    const auto served =
        std::make_shared<ServedSandbox>(found.space, found.name, found.state, **found.record);
    sandboxes_[{found.space, found.name}] = served;
    if (found.running) {
      served->running = *found.running;
      const sandbox::Running running = served->running;
      const auto ask = [running] { return supervisor_of(running); };
      auto supervisor = co_await workers_.run(ask);
      if (!supervisor) {
        notices.push_back(supervisor.error().within(served->name).message);
        continue;
      }
      served->stage = Stage::kRunning;
      served->supervisor = std::make_shared<Fd>(std::move(*supervisor));
      asio::co_spawn(io_, watch_adopted(served), asio::detached);
      if (auto connected = co_await connect(served); !connected) {
        notices.push_back(connected.error().within(served->name).message);
      }
    }
    if (served->record.ephemeral && served->stage == Stage::kStopped) {
      superfluous.push_back(served);
    }
  }
  for (const Served& served : superfluous) {
    asio::co_spawn(
        io_,
        [](Sandboxes* all_of_them, Served one) -> Async<> {
          co_await all_of_them->erase(std::move(one));
        }(this, served),
        asio::detached);
  }
}

Outcome<void> Sandboxes::check_writable(const Key& key) const {
  if (key.scope.read_only) {
    return refuse(Reason::kForbidden, "the key {} is read-only, and may change nothing", key.id);
  }
  return {};
}

// Whether one more may run.
Outcome<void> Sandboxes::check_room(const Key& key, const Record& record,
                                    const ServedSandbox* but_for) const {
  std::size_t all = 0;
  std::size_t own = 0;
  std::uint64_t memory = 0;
  std::uint64_t own_memory = 0;
  for (const auto& [place, served] : sandboxes_) {
    if (served->stage == Stage::kStopped || served.get() == but_for) {
      continue;
    }
    const std::uint64_t mib = served->record.spec.memory_mib.value_or(kDefaultMemoryMib);
    ++all;
    memory += mib;
    if (served->record.owner == record.owner) {
      ++own;
      own_memory += mib;
    }
  }
  const std::uint64_t wanted = record.spec.memory_mib.value_or(kDefaultMemoryMib);
  const auto full = [](std::string message) -> Outcome<void> {
    return std::unexpected(Problem{Reason::kFull, std::move(message), 5});
  };
  if (all >= options_.settings.max_sandboxes) {
    return full(
        fmt::format("{} sandboxes run, and the operator's \"sandboxes\" allows no more", all));
  }
  if (options_.settings.max_memory_mib && memory + wanted > *options_.settings.max_memory_mib) {
    return full(
        fmt::format("the sandboxes that run have {} MiB of memory, and {} more would be "
                    "beyond the operator's \"memory\" of {} MiB",
                    memory, wanted, *options_.settings.max_memory_mib));
  }
  if (key.scope.max_sandboxes && own >= *key.scope.max_sandboxes) {
    return full(fmt::format("{} sandboxes of the key {} run, and it allows no more", own, key.id));
  }
  if (key.scope.max_memory_mib && own_memory + wanted > *key.scope.max_memory_mib) {
    return full(
        fmt::format("the sandboxes of the key {} have {} MiB of memory, and it allows {} MiB",
                    key.id, own_memory, *key.scope.max_memory_mib));
  }
  if (starting_ >= kMaxStarting) {
    return std::unexpected(
        Problem{Reason::kFull, fmt::format("{} sandboxes are being started", starting_), 1});
  }
  return {};
}

Outcome<Served> Sandboxes::enlist(const Key& key, CreateWords& words) {
  const bool named = !words.name.empty();
  if (!named) {
    words.name = made_up_name();
  }
  if (auto good = sandbox::check_name(words.name); !good) {
    return refuse(Reason::kInvalid, good.error());
  }
  if (auto good = sandbox::check_name(words.space); !good) {
    return refuse(Reason::kInvalid, good.error().within("namespace"));
  }
  if (!may_enter(key, words.space)) {
    return refuse(Reason::kForbidden, "the key {} is for the namespace '{}'", key.id,
                  key.scope.space);
  }
  if (sandboxes_.contains({words.space, words.name})) {
    return refuse(Reason::kConflict, "there is a sandbox '{}' already", words.name);
  }
  if (sandboxes_.size() >= kMaxSandboxes) {
    return refuse(Reason::kFull, "there are {} sandboxes: remove some of them", kMaxSandboxes);
  }
  words.record.owner = key.id;
  words.record.created_ms = now_ms();
  auto served = std::make_shared<ServedSandbox>(
      words.space, words.name, state_of(words.space, words.name), std::move(words.record));
  sandboxes_[{words.space, words.name}] = served;
  return served;
}

Async<Outcome<Served>> Sandboxes::create(const Key& key, CreateWords words, PullProgress progress) {
  if (auto writable = check_writable(key); !writable) {
    co_return std::unexpected(writable.error());
  }
  if (!words.record.idempotency.empty()) {
    for (const auto& [place, served] : sandboxes_) {
      if (served->record.idempotency != words.record.idempotency ||
          served->record.owner != key.id || served->space != words.space) {
        continue;
      }
      if (served->record.request != words.record.request) {
        co_return refuse(Reason::kConflict,
                         "the idempotency key was used for another request, which made '{}'",
                         served->name);
      }
      // It may be on its way still.
      const Served found = served;
      {
        const auto pass = co_await found->gate.enter();
      }
      if (found->removed) {
        co_return refuse(Reason::kConflict, "'{}' was removed meanwhile", found->name);
      }
      co_return found;
    }
  }
  if (auto allowed = apply_policy(words.record.spec, options_.settings, key); !allowed) {
    co_return std::unexpected(allowed.error());
  }
  words.record.owner = key.id;
  if (auto room = check_room(key, words.record, nullptr); !room) {
    co_return std::unexpected(room.error());
  }
  const auto patience = words.patience;
  auto served = enlist(key, words);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  (*served)->stage = Stage::kStarting;  // what there is room for is counted from here on
  const auto work = [](Sandboxes* self, Served one, PullProgress told,
                       std::optional<seconds> patient) -> Async<Outcome<Served>> {
    const auto pass = co_await one->gate.enter();
    auto up = co_await self->bring_up(one, std::move(told), patient);
    if (!up) {
      // Nothing was in it yet.
      co_await self->discard(one);
      co_return std::unexpected(up.error());
    }
    co_return one;
  };
  co_return co_await shield(work(this, *served, std::move(progress), patience));
}

Async<Outcome<Served>> Sandboxes::start_or_create(const Key& key, CreateWords words,
                                                  PullProgress progress) {
  const auto found = sandboxes_.find({words.space, words.name});
  if (found == sandboxes_.end() || !may_enter(key, words.space)) {
    if (words.record.spec.image.empty()) {
      if (auto declared = co_await find_declared(words); !declared) {
        co_return std::unexpected(declared.error());
      }
    }
    co_return co_await create(key, std::move(words), std::move(progress));
  }
  const Served served = found->second;
  if (auto writable = check_writable(key); !writable) {
    co_return std::unexpected(writable.error());
  }
  if (!words.record.spec.image.empty() && served->stage == Stage::kStopped) {
    if (auto allowed = apply_policy(words.record.spec, options_.settings, key); !allowed) {
      co_return std::unexpected(allowed.error());
    }
    served->record.spec = std::move(words.record.spec);
    served->record.exec = std::move(words.record.exec);
    served->record.declared = false;
  }
  co_return co_await start(key, served, std::move(progress));
}

// The sandbox of that name in the project that the operator gave the server.
Async<Outcome<void>> Sandboxes::find_declared(CreateWords& words) {
  if (options_.project.empty() || words.space != kDefaultNamespace) {
    co_return refuse(Reason::kNotFound,
                     "there is no sandbox '{}', and no image is named to make it of", words.name);
  }
  const std::string name = words.name;
  const std::string directory = options_.project;
  const auto read = [name, directory]() -> Outcome<Record> {
    const auto project =
        sandbox::open_project(fmt::format("{}/{}", directory, sandbox::kSandboxfile));
    if (!project) {
      return refuse(Reason::kFailed, project.error());
    }
    const auto entry = project->get(name);
    if (!entry) {
      return refuse(Reason::kNotFound, entry.error());
    }
    if (!(*entry)->spec.depends_on.empty()) {
      return refuse(Reason::kInvalid,
                    "'{}' depends on other sandboxes, which the server does not start; `msb up` "
                    "does",
                    name);
    }
    Record made;
    made.spec = (*entry)->spec;
    made.declared = true;
    const auto variables = sandbox::read_variables(made.spec, project->directory);
    if (!variables) {
      return refuse(Reason::kFailed, variables.error());
    }
    made.spec.envs = variables->variables;
    made.spec.env_files.clear();
    for (sandbox::Volume& volume : made.spec.volumes) {
      volume.host = (std::filesystem::path(project->directory) / volume.host).lexically_normal();
    }
    return made;
  };
  auto record = co_await workers_.run(read);
  if (!record) {
    co_return std::unexpected(record.error());
  }
  words.record.spec = std::move(record->spec);
  words.record.declared = true;
  co_return Outcome<void>();
}

Async<Outcome<Served>> Sandboxes::start(const Key& key, Served served, PullProgress progress) {
  if (auto writable = check_writable(key); !writable) {
    co_return std::unexpected(writable.error());
  }
  const auto work = [](Sandboxes* self, Key by, Served one,
                       PullProgress told) -> Async<Outcome<Served>> {
    const auto pass = co_await one->gate.enter();
    if (one->removed) {
      co_return refuse(Reason::kNotFound, "'{}' was removed", one->name);
    }
    if (one->stage == Stage::kRunning || one->stage == Stage::kPaused) {
      co_return one;
    }
    if (auto room = self->check_room(by, one->record, one.get()); !room) {
      co_return std::unexpected(room.error());
    }
    one->stage = Stage::kStarting;
    auto up = co_await self->bring_up(one, std::move(told), std::nullopt);
    if (!up) {
      co_return std::unexpected(up.error());
    }
    co_return one;
  };
  co_return co_await shield(work(this, key, std::move(served), std::move(progress)));
}

// To be called with its gate's pass and the stage kStarting. When it fails it does not run.
Async<Outcome<void>> Sandboxes::bring_up(Served served, PullProgress progress,
                                         std::optional<seconds> patience) {
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
  served->supervisor =
      std::make_shared<Fd>(::fcntl(launched->supervisor().process.get(), F_DUPFD_CLOEXEC, 0));
  const auto shared = std::make_shared<sandbox::Launched>(std::move(*launched));
  asio::co_spawn(io_, watch_child(served, shared), asio::detached);
  const auto limit = patience.value_or(pulled ? kPullPatience : kStartPatience);
  auto up = co_await await_running(served, shared, begun + limit);
  if (up) {
    if (auto connected = co_await connect(served); connected) {
      served->stage = Stage::kRunning;
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
  const LaunchWords words{{sandbox::Kind::kServed, served->name, "", served->directory.path(), {}},
                          served->record,
                          options_.home};
  const auto find = [words]() -> Outcome<sandbox::ImageChoice> {
    const sandbox::StateDirectory state(words.who.state);
    if (auto made = state.make(); !made) {
      return refuse(Reason::kFailed, made.error());
    }
    if (auto written = write_record(state, words.record); !written) {
      return refuse(Reason::kFailed, written.error());
    }
    auto choice = choose(words);
    if (!choice) {
      return refuse(Reason::kConflict, choice.error());
    }
    return std::move(*choice);
  };
  auto image = co_await workers_.run(find);
  if (image && !image->missing.empty()) {
    pulled = true;
    auto fetched = co_await pulls_.pull(image->missing, std::move(progress));
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
  asio::co_spawn(io_, follow(launched, watch), asio::detached);
  while (!watch->ended) {
    if (!co_await watch->come.wait(deadline)) {
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

// What its supervisor says of it.
Async<Result<void>> Sandboxes::connect(Served served) {
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
  if (sandbox::text_member(*status, "state") == "paused") {
    served->stage = Stage::kPaused;
  }
  co_return Result<void>();
}

// Of one that this server has started, which has to be waited for.
Async<> Sandboxes::watch_child(Served served, std::shared_ptr<sandbox::Launched> launched) {
  co_await await_readable(launched->supervisor().process.get());
  const auto finish = [launched] { return launched->finish(); };
  co_await workers_.run(finish);
  on_end(served);
}

// Of one that another has.
Async<> Sandboxes::watch_adopted(Served served) {
  const auto supervisor = served->supervisor;
  co_await await_readable(supervisor->get());
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
    const auto remove = [](Sandboxes* self, Served one) -> Async<> {
      const auto pass = co_await one->gate.enter();
      if (one->stage == Stage::kStopped && !one->removed) {
        co_await self->discard(one);
      }
    };
    asio::co_spawn(io_, remove(this, served), asio::detached);
  }
}

// Ends one that runs, with its gate's pass.
Async<Outcome<void>> Sandboxes::end(Served served, bool at_once) {
  const sandbox::Running running = served->running;
  served->stage = Stage::kStopping;
  const auto supervisor = served->supervisor;
  const auto until = [&](seconds patience) { return Signal::Clock::now() + patience; };
  if (!at_once) {
    const auto ask = [running] { return ask_supervisor(running, "stop"); };
    const auto asked = co_await workers_.run(ask);
    const auto deadline = until(asked ? kStopPatience : seconds(0));
    while (served->stage != Stage::kStopped && co_await served->ended.wait(deadline)) {
    }
  }
  if (served->stage != Stage::kStopped) {
    const auto ask = [running] { return ask_supervisor(running, "kill"); };
    const auto asked = co_await workers_.run(ask);
    const auto deadline = until(asked ? kKillPatience : seconds(0));
    while (served->stage != Stage::kStopped && co_await served->ended.wait(deadline)) {
    }
  }
  if (served->stage != Stage::kStopped && supervisor && *supervisor) {
    // It hangs, and its sandbox with it.
    ::syscall(SYS_pidfd_send_signal, supervisor->get(), SIGKILL, nullptr, 0);
    const auto deadline = until(kKillPatience);
    while (served->stage != Stage::kStopped && co_await served->ended.wait(deadline)) {
    }
  }
  if (served->stage != Stage::kStopped) {
    co_return refuse(Reason::kFailed, "'{}' does not end", served->name);
  }
  co_return Outcome<void>();
}

Async<Outcome<void>> Sandboxes::stop(const Key& key, Served served, bool at_once) {
  if (auto writable = check_writable(key); !writable) {
    co_return writable;
  }
  const auto work = [](Sandboxes* self, Served one, bool hard) -> Async<Outcome<void>> {
    const auto pass = co_await one->gate.enter();
    co_return one->stage == Stage::kStopped ? Outcome<void>() : co_await self->end(one, hard);
  };
  co_return co_await shield(work(this, std::move(served), at_once));
}

Async<Outcome<void>> Sandboxes::remove(const Key& key, Served served) {
  if (auto writable = check_writable(key); !writable) {
    co_return writable;
  }
  co_return co_await erase(std::move(served));
}

Async<Outcome<void>> Sandboxes::erase(Served served) {
  const auto work = [](Sandboxes* self, Served one) -> Async<Outcome<void>> {
    const auto pass = co_await one->gate.enter();
    if (one->removed) {
      co_return Outcome<void>();
    }
    if (one->stage != Stage::kStopped) {
      // What it has written is not wanted any more.
      if (auto ended = co_await self->end(one, true); !ended) {
        co_return ended;
      }
    }
    co_return co_await self->discard(one);
  };
  co_return co_await shield(work(this, std::move(served)));
}

// Removes what one has kept that does not run, with its gate's pass.
Async<Outcome<void>> Sandboxes::discard(Served served) {
  const sandbox::StateDirectory directory = served->directory;
  const auto remove = [directory]() -> Result<bool> {
    if (!directory.exists()) {
      return true;
    }
    const auto space = directory.remove();
    return space ? Result<bool>(space->has_value()) : std::unexpected(space.error());
  };
  const auto removed = co_await workers_.run(remove);
  if (!removed) {
    co_return refuse(Reason::kFailed, removed.error());
  }
  if (!*removed) {
    co_return refuse(Reason::kConflict, "'{}' was started by another program", served->name);
  }
  served->removed = true;
  sandboxes_.erase({served->space, served->name});
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
    const auto ask = [running, hold] {
      return ask_supervisor(running, hold ? "pause" : "resume");
    };
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

Outcome<Served> Sandboxes::find(const Key& key, const std::string& space,
                                const std::string& name) const {
  const auto found = sandboxes_.find({space, name});
  if (found == sandboxes_.end() || !may_enter(key, space)) {
    return refuse(Reason::kNotFound, "there is no sandbox '{}'", oci::printable(name));
  }
  return found->second;
}

Outcome<Served> Sandboxes::find_running(const Key& key, const std::string& space,
                                        const std::string& name) const {
  auto served = find(key, space, name);
  if (!served) {
    return served;
  }
  if ((*served)->stage != Stage::kRunning || !(*served)->guest) {
    return refuse(Reason::kConflict, "the sandbox '{}' is {}{}", name, stage_word((*served)->stage),
                  (*served)->stage == Stage::kStopped ? "; start it first" : "");
  }
  return served;
}

std::vector<Served> Sandboxes::list(const Key& key, const std::string& space) const {
  std::vector<Served> all;
  for (const auto& [place, served] : sandboxes_) {
    if (may_enter(key, served->space) && (space.empty() || served->space == space)) {
      all.push_back(served);
    }
  }
  return all;
}

Async<Outcome<Usage>> Sandboxes::measure(Served served) const {
  Usage usage;
  const std::string disk = served->directory.disk();
  usage.disk_bytes = sandbox::space_of(disk);
  const auto guest = served->guest;
  if (!guest || served->stage != Stage::kRunning) {
    co_return usage;
  }
  const auto measured = co_await guest->ask<msb_metrics>(
      [](protocol::Requests& requests, protocol::Requests::Done<msb_metrics> done) {
        requests.metrics(std::move(done));
      });
  if (!measured) {
    co_return std::unexpected(measured.error());
  }
  // Of its whole life, where there was no look before.
  usage.cpu_percent = sandbox::cpu_percent(served->measured.value_or(msb_metrics{}), *measured);
  served->measured = *measured;
  usage.memory_total = measured->memory_total;
  usage.memory_bytes =
      measured->memory_total - std::min(measured->memory_available, measured->memory_total);
  usage.processes = measured->processes;
  usage.received_bytes = measured->received_bytes;
  usage.sent_bytes = measured->sent_bytes;
  co_return usage;
}

Async<std::optional<sandbox::ExitRecord>> Sandboxes::exit_record(Served served) const {
  const sandbox::StateDirectory directory = served->directory;
  const auto read = [directory] { return directory.exit_record(); };
  auto record = co_await workers_.run(read);
  co_return record ? std::move(*record) : std::nullopt;
}

Async<> Sandboxes::end_session(std::string session) {
  std::vector<Served> own;
  for (const auto& [place, served] : sandboxes_) {
    if (!session.empty() && served->record.session == session) {
      own.push_back(served);
    }
  }
  for (const Served& served : own) {
    co_await erase(served);
  }
}

}  // namespace msb::server
