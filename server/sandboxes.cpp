// SPDX-License-Identifier: Apache-2.0
#include "server/sandboxes.hpp"

#include <sys/random.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "oci/printable.hpp"
#include "sandbox/compose.hpp"
#include "sandbox/disk.hpp"
#include "sandbox/metrics_sampler.hpp"
#include "server/presence.hpp"

namespace msb::server {

namespace {

constexpr std::size_t kMaxStarting = 32;
constexpr std::size_t kMaxSandboxes = 4096;  // also of those that do not run
constexpr std::uint32_t kDefaultMemoryMib = 512;
constexpr unsigned kRetryAfterRemoval = 60;  // seconds

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Of whoever starts it.
void put_under(Record& record, const Key& key) {
  record.starter = key.id;
  record.lifetime_s = key.scope.max_lifetime_s;
}

std::uint64_t random_number() {
  std::uint64_t number = 0;
  while (::getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) {
  }
  return number;
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
    if (served->record.starter == key.id) {
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
    words.name = fmt::format("sandbox-{:08x}", random_number() >> 32);
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
    return std::unexpected(Problem{
        Reason::kFull, fmt::format("there are {} sandboxes: remove some of them", kMaxSandboxes),
        kRetryAfterRemoval});
  }
  words.record.id = fmt::format("{:016x}", random_number());
  words.record.owner = key.id;
  words.record.created_ms = now_ms();
  auto served = std::make_shared<ServedSandbox>(
      words.space, words.name, state_of(words.space, words.name), std::move(words.record));
  sandboxes_[{words.space, words.name}] = served;
  return served;
}

// What a request with the same idempotency key has made.
Served Sandboxes::find_creation(const Key& key, const CreateWords& words) const {
  for (const auto& [place, served] : sandboxes_) {
    if (!words.record.idempotency.empty() &&
        served->record.idempotency == words.record.idempotency && served->record.owner == key.id &&
        served->space == words.space) {
      return served;
    }
  }
  return nullptr;
}

Async<Outcome<Served>> Sandboxes::create(const Key& key, CreateWords words, PullProgress progress) {
  if (auto writable = check_writable(key); !writable) {
    co_return std::unexpected(writable.error());
  }
  if (Served found = find_creation(key, words)) {
    if (found->record.request != words.record.request) {
      co_return refuse(Reason::kConflict,
                       "the idempotency key was used for another request, which made '{}'",
                       found->name);
    }
    {
      // It may be on its way still.
      const auto pass = co_await found->gate.enter();
    }
    // Where another program has removed it, it is made anew.
    (void)co_await look_again(found->space, found->name);
    if (!found->removed) {
      co_return found;
    }
  }
  // What a project's Sandboxfile says is the operator's own word.
  if (!words.record.declared) {
    if (auto allowed = apply_policy(words.record.spec, options_.settings, key); !allowed) {
      co_return std::unexpected(allowed.error());
    }
  }
  put_under(words.record, key);
  if (auto room = check_room(key, words.record, nullptr); !room) {
    co_return std::unexpected(room.error());
  }
  auto served = enlist(key, words);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  (*served)->stage = Stage::kStarting;  // what there is room for is counted from here on
  const auto work = [](Sandboxes* self, Served one, PullProgress told) -> Async<Outcome<Served>> {
    const auto pass = co_await one->gate.enter();
    auto up = co_await self->bring_up(one, std::move(told));
    if (!up) {
      // Nothing was in it yet. It may also be that another program was the first with this name.
      co_await self->discard(one);
      if (!one->removed) {
        self->forget(one);
      }
      co_return std::unexpected(up.error());
    }
    co_return one;
  };
  co_return co_await shield(work(this, *served, std::move(progress)));
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
  std::optional<Record> changed;
  if (!words.record.spec.image.empty() && served->stage == Stage::kStopped) {
    if (auto allowed = apply_policy(words.record.spec, options_.settings, key); !allowed) {
      co_return std::unexpected(allowed.error());
    }
    changed = served->record;
    changed->spec = std::move(words.record.spec);
    changed->exec = std::move(words.record.exec);
    changed->declared = false;
  }
  co_return co_await start_as(key, served, std::move(changed), std::move(progress));
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
  const auto idle = words.record.spec.idle_timeout_s;
  words.record.spec = std::move(record->spec);
  if (!words.record.spec.idle_timeout_s) {
    words.record.spec.idle_timeout_s = idle;
  }
  words.record.declared = true;
  co_return Outcome<void>();
}

Async<Outcome<Served>> Sandboxes::start(const Key& key, Served served, PullProgress progress) {
  return start_as(key, std::move(served), std::nullopt, std::move(progress));
}

// `changed`: what it is from then on, when it starts so.
Async<Outcome<Served>> Sandboxes::start_as(const Key& key, Served served,
                                           std::optional<Record> changed, PullProgress progress) {
  if (auto writable = check_writable(key); !writable) {
    co_return std::unexpected(writable.error());
  }
  const auto work = [](Sandboxes* self, Key by, Served one, std::optional<Record> other,
                       PullProgress told) -> Async<Outcome<Served>> {
    while (one->elsewhere && one->stage == Stage::kStarting) {
      co_await one->ended.wait();
    }
    const auto pass = co_await one->gate.enter();
    if (one->removed) {
      co_return refuse(Reason::kNotFound, "'{}' was removed", one->name);
    }
    if (one->stage == Stage::kRunning || one->stage == Stage::kPaused) {
      co_return one;
    }
    const Record before = one->record;
    if (other) {
      one->record = std::move(*other);
    }
    put_under(one->record, by);
    // The operator may have changed it since.
    sandbox::SandboxSpec judged = one->record.spec;
    const Key nobodys;  // the limits of this one's key are those of what runs
    auto allowed = one->record.declared ? Outcome<void>()
                                        : apply_policy(judged, self->options_.settings, nobodys);
    if (!allowed) {
      one->record = before;
      co_return std::unexpected(allowed.error());
    }
    if (auto room = self->check_room(by, one->record, one.get()); !room) {
      one->record = before;
      co_return std::unexpected(room.error());
    }
    one->stage = Stage::kStarting;
    auto up = co_await self->bring_up(one, std::move(told));
    if (!up) {
      // It became what it was to be, when it came so far.
      const sandbox::StateDirectory directory = one->directory;
      const auto read = [directory] { return read_record(directory); };
      auto kept = co_await self->workers_.run(read);
      one->record = kept && *kept ? std::move(**kept) : before;
      co_return std::unexpected(up.error());
    }
    co_return one;
  };
  co_return co_await shield(
      work(this, key, std::move(served), std::move(changed), std::move(progress)));
}

Async<Outcome<void>> Sandboxes::stop(const Key& key, Served served, bool at_once) {
  if (auto writable = check_writable(key); !writable) {
    co_return writable;
  }
  const auto work = [](Sandboxes* self, Served one, bool hard) -> Async<Outcome<void>> {
    const auto pass = co_await one->gate.enter();
    if (one->stage == Stage::kStopped) {
      co_return Outcome<void>();
    }
    co_return co_await self->end(one, hard);
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

// Removes what one has kept that does not run, with its gate's pass. What another program has made
// of the same name meanwhile stays.
Async<Outcome<void>> Sandboxes::discard(Served served) {
  const sandbox::StateDirectory directory = served->directory;
  const std::string id = served->record.id;
  const std::string ended = served->running.id;
  const auto remove = [directory, id, ended]() -> Result<bool> {
    if (!directory.exists()) {
      return true;
    }
    auto locked = directory.lock_when_free(ended);
    if (!locked || !*locked) {
      return locked ? Result<bool>(false) : std::unexpected(locked.error());
    }
    const auto record = read_record((*locked)->state);
    if (record && *record && (*record)->id != id) {
      return true;
    }
    const auto removed = (*locked)->remove();
    return removed ? Result<bool>(true) : std::unexpected(removed.error());
  };
  const auto removed = co_await workers_.run(remove);
  if (!removed) {
    co_return refuse(Reason::kFailed, removed.error());
  }
  if (!*removed) {
    co_return refuse(Reason::kConflict,
                     "'{}' was started by another program in the meantime; try again",
                     served->name);
  }
  forget(served);
  co_return Outcome<void>();
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
