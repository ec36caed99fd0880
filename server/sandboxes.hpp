// SPDX-License-Identifier: Apache-2.0
// The sandboxes of the server: what every interface of it does with them. What they are is on disk
// and what runs is a supervisor of its own, so that a server which starts anew finds all of it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/launch.hpp"
#include "sandbox/project.hpp"
#include "sandbox/runtime_directory.hpp"
#include "sandbox/state_directory.hpp"
#include "server/asio_io.hpp"
#include "server/async.hpp"
#include "server/code.hpp"
#include "server/guest.hpp"
#include "server/keeper.hpp"
#include "server/keys.hpp"
#include "server/policy.hpp"
#include "server/problem.hpp"
#include "server/pulls.hpp"
#include "server/record.hpp"
#include "server/settings.hpp"

namespace msb::server {

inline constexpr std::string_view kDefaultNamespace = "default";

enum class Stage : std::uint8_t { kStopped, kStarting, kRunning, kPaused, kStopping };
std::string_view stage_word(Stage stage);

struct PublishedPort {
  std::string protocol;  // tcp or udp
  std::string address;
  std::uint16_t host_port = 0;
  std::uint16_t guest_port = 0;
};

// One of them. Others look at it, and change it through Sandboxes alone.
class ServedSandbox {
 public:
  ServedSandbox(std::string in, std::string called, const std::string& state, Record what)
      : space(std::move(in)), name(std::move(called)), directory(state), record(std::move(what)) {}

  const std::string space;
  const std::string name;
  const sandbox::StateDirectory directory;
  Record record;
  Stage stage = Stage::kStopped;
  std::vector<PublishedPort> published;  // while it runs
  std::int64_t started_ms = 0;           // since 1970; 0: it does not run
  std::shared_ptr<Guest> guest;          // while it runs, as is the next
  std::shared_ptr<CodeSessions> code;
  std::optional<msb_metrics> measured;  // what its agent said last
  bool removed = false;

 private:
  friend class Sandboxes;
  Gate gate;  // of what changes it
  sandbox::Running running;
  std::shared_ptr<Fd> supervisor;  // a pidfd, while it runs
  bool elsewhere = false;          // another program has started it
  Signal ended;                    // or its start is over
};
using Served = std::shared_ptr<ServedSandbox>;

// What a client wants.
struct CreateWords {
  std::string space{kDefaultNamespace};
  std::string name;  // empty: one is made up
  Record record;     // its spec and what else the client said
};

struct Usage {
  std::optional<double> cpu_percent;  // of one processor, since the look before or its start
  std::optional<std::uint64_t> memory_bytes;
  std::optional<std::uint64_t> memory_total;
  std::uint64_t disk_bytes = 0;
  std::optional<std::uint64_t> processes;
  std::optional<std::uint64_t> received_bytes;
  std::optional<std::uint64_t> sent_bytes;
};

class Sandboxes {
 public:
  struct Options {
    std::string home;     // $MSB_HOME
    std::string project;  // as of ServeOptions
    Settings settings;
    Keeper keeper;
  };
  Sandboxes(asio::io_context& io, AsioIo& guests, Workers& workers, Options options);
  Sandboxes(const Sandboxes&) = delete;
  Sandboxes& operator=(const Sandboxes&) = delete;
  ~Sandboxes();

  // Finds what there is and what runs of it. Ephemeral ones that have ended, and whose keeper has,
  // are removed. A damaged one is left alone, and told in `notices`.
  Async<> adopt(std::vector<std::string>& notices);
  // Sees what others have made, started or removed meanwhile, of one that the key may see, or of
  // all. To be called before what is below looks for it; costs nothing for one that runs.
  Async<> refresh(Key key, std::string space, std::string name);
  Async<> refresh_all();

  // A new one that runs. With an idempotency key that was used before: the one of that time.
  Async<Outcome<Served>> create(const Key& key, CreateWords words, PullProgress progress);
  // As the 0.2 line starts one: makes it when it is new, changes what it is when `words` say so,
  // and is done when it runs already. Without an image it has to be there, or in the project's
  // Sandboxfile.
  Async<Outcome<Served>> start_or_create(const Key& key, CreateWords words, PullProgress progress);
  Async<Outcome<Served>> start(const Key& key, Served served, PullProgress progress);
  // Waits for its end. Nothing to do when it does not run.
  Async<Outcome<void>> stop(const Key& key, Served served, bool at_once = false);
  // Stops it, with all that it has kept.
  Async<Outcome<void>> remove(const Key& key, Served served);
  Async<Outcome<void>> set_paused(const Key& key, Served served, bool paused);

  // Fails for one that the key may not see as for one that is not there.
  Outcome<Served> find(const Key& key, const std::string& space, const std::string& name) const;
  // The same, and it runs.
  Outcome<Served> find_running(const Key& key, const std::string& space,
                               const std::string& name) const;
  // By namespace and name. `space` empty: all that the key may see.
  std::vector<Served> list(const Key& key, const std::string& space) const;

  Async<Outcome<Usage>> measure(Served served) const;
  // How it ended; nothing when it runs, or never has.
  Async<std::optional<sandbox::ExitRecord>> exit_record(Served served) const;
  // Ends those of an MCP session.
  Async<> end_session(std::string session);

  [[nodiscard]] Workers& workers() const { return workers_; }
  [[nodiscard]] AsioIo& guests() const { return guests_; }
  [[nodiscard]] const Settings& settings() const { return options_.settings; }
  [[nodiscard]] const std::string& home() const { return options_.home; }
  [[nodiscard]] Pulls& pulls() { return pulls_; }

 private:
  Outcome<void> check_writable(const Key& key) const;
  Outcome<void> check_room(const Key& key, const Record& record,
                           const ServedSandbox* but_for) const;
  Served find_creation(const Key& key, const CreateWords& words) const;
  Outcome<Served> enlist(const Key& key, CreateWords& words);
  Async<Outcome<Served>> start_as(const Key& key, Served served, std::optional<Record> changed,
                                  PullProgress progress);
  Async<Outcome<void>> bring_up(Served served, PullProgress progress);
  Async<Outcome<sandbox::Launched>> launch(Served served, PullProgress progress, bool& pulled);
  Async<Outcome<void>> await_running(Served served, std::shared_ptr<sandbox::Launched> launched,
                                     Signal::Clock::time_point deadline);
  Async<> watch_child(Served served, std::shared_ptr<sandbox::Launched> launched);
  Async<std::vector<std::string>> look_around();
  Async<Result<void>> look_again(std::string space, std::string name);
  Async<Result<void>> take_over(Served served, sandbox::Running running);
  Async<> follow_start(Served served);
  Async<> watch_adopted(Served served);
  void forget(const Served& served);
  bool is_superfluous(const ServedSandbox& served) const;
  void on_end(const Served& served);
  Async<> sweep(Served served);
  Async<Result<Stage>> connect(Served served);
  Async<Outcome<void>> end(Served served, bool at_once);
  Async<Outcome<void>> erase(Served served);
  Async<Outcome<void>> discard(Served served);
  Async<Outcome<void>> find_declared(CreateWords& words);
  std::string state_of(const std::string& space, const std::string& name) const;

  asio::io_context& io_;
  AsioIo& guests_;
  Workers& workers_;
  Options options_;
  Pulls pulls_;
  std::map<std::pair<std::string, std::string>, Served> sandboxes_;
  std::uint64_t removals_ = 0;  // how often one went from that map
  std::size_t starting_ = 0;
};

}  // namespace msb::server
