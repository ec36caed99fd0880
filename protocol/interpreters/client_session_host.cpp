// SPDX-License-Identifier: Apache-2.0
#include "protocol/interpreters/client_session_host.hpp"

#include <cerrno>
#include <csignal>
#include <list>
#include <optional>
#include <utility>
#include <vector>

#include "protocol/process.hpp"
#include "protocol/requests.hpp"

namespace msb::protocol {

namespace {

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Lives until its timeout has completed, whoever let go of it before.
struct Timeout : std::enable_shared_from_this<Timeout> {
  explicit Timeout(std::function<void()> what)
      : function(std::move(what)), operation([this](std::int32_t result) {
          const auto last = std::exchange(self, nullptr);
          if (result == -ETIME && function) {
            std::exchange(function, nullptr)();
          }
        }) {}
  std::function<void()> function;
  std::shared_ptr<Timeout> self;
  Operation operation;
};

class ClientTimer final : public SessionTimer {
 public:
  ClientTimer(AsyncIo& io, std::chrono::milliseconds delay, std::function<void()> function)
      : io_(io), timeout_(std::make_shared<Timeout>(std::move(function))) {
    timeout_->self = timeout_;
    const auto nanoseconds = std::chrono::nanoseconds(delay).count();
    io_.timeout(static_cast<std::uint64_t>(nanoseconds), timeout_->operation);
  }
  ~ClientTimer() override {
    timeout_->function = nullptr;
    io_.cancel(timeout_->operation);
  }

 private:
  AsyncIo& io_;
  std::shared_ptr<Timeout> timeout_;
};

}  // namespace

// Processes that were killed, until the agent has forgotten them.
class ClientSessionHost::Graves {
 public:
  void bury(AsyncIo& io, Fd socket, std::uint32_t process) {
    const auto grave = graves_.emplace(graves_.end(), io, std::move(socket));
    grave->signal(process, SIGKILL, true, [](const Answer<void>&) {});
    grave->wait(process, [](const Answer<Exited>&) {});
    // When one before it fails, the process is gone already, or the connection, and this fails too.
    grave->forget(process, [this, grave](const Answer<void>&) { graves_.erase(grave); });
  }

 private:
  std::list<Requests> graves_;
};

namespace {

class ClientProcess final : public SessionProcess {
 public:
  // Buries with `bury` when it is killed.
  ClientProcess(AsyncIo& io, Opener opener, std::function<void(Fd, std::uint32_t)> bury,
                Events events)
      : state_(std::make_shared<State>(io, std::move(opener), std::move(bury), std::move(events))) {
  }
  ~ClientProcess() override {
    state_->events = {};
    if (!state_->killed || state_->id) {
      state_->self.reset();
      state_->process.reset();
    }
  }

  Result<void> start(const SessionStart& start) {
    auto socket = state_->opener();
    if (!socket) {
      return std::unexpected(socket.error());
    }
    ProcessSpec spec;
    spec.arguments = start.arguments;
    spec.environment = start.variables;
    spec.directory = start.directory;
    spec.user = start.user;
    spec.label = start.label;
    spec.keep = 0;
    spec.channel = true;
    spec.input = false;
    auto process = Process::start(state_->io, std::move(*socket), spec, state_->process_events());
    if (!process) {
      return std::unexpected(process.error());
    }
    state_->process.emplace(std::move(*process));
    return {};
  }

  Result<void> attach(std::uint32_t id) {
    auto socket = state_->opener();
    if (!socket) {
      return std::unexpected(socket.error());
    }
    AttachSpec spec{.process = id};
    spec.offsets.fill(MSB_OFFSET_END);
    state_->id = id;
    state_->attaching = true;
    state_->process.emplace(
        Process::attach(state_->io, std::move(*socket), spec, state_->process_events()));
    return {};
  }

  void write_channel(std::string_view bytes) override {
    if (state_->attaching) {
      state_->unwritten += bytes;
    } else {
      state_->process->send_channel(std::as_bytes(std::span(bytes)));
    }
  }

  void end_channel() override {
    if (state_->attaching) {
      state_->end_when_attached = true;
    } else {
      state_->process->end_channel();
    }
  }

  void signal(int number, bool group, std::function<void()> answered) override {
    state_->once_known([state = state_.get(), number, group, answered = std::move(answered)] {
      state->signal(number, group, answered);
    });
  }

  void kill() override {
    state_->killed = true;
    if (!state_->id) {
      state_->self = state_;  // until the agent says which process it is
    }
    state_->once_known([state = state_.get()] { state->bury(); });
  }

 private:
  struct State {
    State(AsyncIo& with, Opener opened, std::function<void(Fd, std::uint32_t)> burial,
          Events report)
        : io(with),
          opener(std::move(opened)),
          bury_process(std::move(burial)),
          events(std::move(report)) {}

    // Runs now, or once the process's id has come.
    void once_known(std::function<void()> step) {
      if (id) {
        step();
      } else {
        waiting.push_back(std::move(step));
      }
    }

    void know(std::uint32_t process_id) {
      id = process_id;
      for (const auto& step : std::exchange(waiting, {})) {
        step();
      }
      self.reset();
    }

    // What was written meanwhile; Process takes it only now.
    void on_attached() {
      attaching = false;
      process->send_channel(std::as_bytes(std::span(unwritten)));
      unwritten.clear();
      if (end_when_attached) {
        process->end_channel();
      }
    }

    void signal(int number, bool group, const std::function<void()>& answered) {
      if (!requests || !requests->open()) {
        auto socket = opener();
        if (!socket) {
          later(answered);
          return;
        }
        requests.emplace(io, std::move(*socket));
      }
      calling = true;
      requests->signal(
          *id, static_cast<std::uint32_t>(number), group,
          [this, answered](const Answer<void>&) { calling ? later(answered) : answered(); });
      calling = false;
    }

    // From the loop, not from inside the call that asked.
    void later(const std::function<void()>& function) {
      timer = std::make_unique<ClientTimer>(io, std::chrono::milliseconds(0), function);
    }

    void bury() {
      // Without a connection the sandbox has ended, and the process with it.
      if (auto socket = opener()) {
        bury_process(std::move(*socket), *id);
      }
    }

    void end(const SessionEnd& how) {
      const auto keep = std::exchange(self, nullptr);
      if (const auto ended = events.ended) {
        ended(how);
      }
    }

    Process::Events process_events() {
      return {
          .started = [this](const msb_started& started) { know(started.process); },
          .attached = [this](const msb_attached&) { on_attached(); },
          .output =
              [this](msb_stream stream, std::span<const std::byte> bytes) {
                // Copies: the session may let go of the process inside its own events.
                if (stream == MSB_STREAM_CHANNEL) {
                  if (const auto channel = events.channel) {
                    channel(bytes);
                  }
                } else if (const auto text =
                               stream == MSB_STREAM_STDOUT ? events.output : events.error_output) {
                  text(as_text(bytes));
                }
                return true;
              },
          .sent = nullptr,
          .exited =
              [this](const Exited& exited) {
                end({.kind = exited.fields.kind == MSB_EXIT_SIGNAL ? SessionEnd::Kind::kSignalled
                                                                   : SessionEnd::Kind::kExited,
                     .value = exited.fields.value});
              },
          .detached =
              [this] {
                end({.kind = SessionEnd::Kind::kLost,
                     .reason = "another connection took the session over"});
              },
          .failed =
              [this](const Failure& failure) {
                end({.kind = SessionEnd::Kind::kLost, .reason = failure.error.message});
              }};
    }

    AsyncIo& io;
    Opener opener;
    std::function<void(Fd, std::uint32_t)> bury_process;
    Events events;
    std::optional<std::uint32_t> id;
    bool killed = false;
    bool calling = false;
    bool attaching = false;
    std::string unwritten;
    bool end_when_attached = false;
    std::vector<std::function<void()>> waiting;
    std::optional<Process> process;
    std::optional<Requests> requests;
    std::unique_ptr<ClientTimer> timer;
    std::shared_ptr<State> self;
  };

  std::shared_ptr<State> state_;
};

}  // namespace

ClientSessionHost::ClientSessionHost(AsyncIo& io, Opener opener)
    : io_(io), opener_(std::move(opener)), graves_(std::make_shared<Graves>()) {}

std::function<void(Fd, std::uint32_t)> ClientSessionHost::burial() {
  return [&io = io_, graves = std::weak_ptr(graves_)](Fd socket, std::uint32_t process) {
    if (const auto here = graves.lock()) {
      here->bury(io, std::move(socket), process);
    }
  };
}

Result<std::unique_ptr<SessionProcess>> ClientSessionHost::start(const SessionStart& start,
                                                                 SessionProcess::Events events) {
  auto process = std::make_unique<ClientProcess>(io_, opener_, burial(), std::move(events));
  if (auto started = process->start(start); !started) {
    return std::unexpected(started.error());
  }
  return process;
}

Result<std::unique_ptr<SessionProcess>> ClientSessionHost::attach(std::uint32_t process,
                                                                  SessionProcess::Events events) {
  auto attached = std::make_unique<ClientProcess>(io_, opener_, burial(), std::move(events));
  if (auto done = attached->attach(process); !done) {
    return std::unexpected(done.error());
  }
  return attached;
}

std::unique_ptr<SessionTimer> ClientSessionHost::after(std::chrono::milliseconds delay,
                                                       std::function<void()> function) {
  return std::make_unique<ClientTimer>(io_, delay, std::move(function));
}

}  // namespace msb::protocol
