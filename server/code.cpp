// SPDX-License-Identifier: Apache-2.0
#include "server/code.hpp"

#include <algorithm>
#include <csignal>
#include <utility>

namespace msb::server {

using protocol::Interpreter;
using protocol::ListedSession;

namespace {

constexpr std::size_t kMaxWaiting = 16;  // for one session
constexpr std::size_t kMaxSessions = 64;
constexpr std::chrono::seconds kIdle{10};  // before a session that nobody uses is let go

std::unexpected<Problem> session_closed() {
  return refuse(Reason::kConflict, "the session was closed");
}

}  // namespace

struct CodeSessions::Session {
  // The start of its interpreter, which comes to one end.
  struct Opening {
    std::optional<Outcome<void>> outcome;
    Signal come;
    void end(Outcome<void> how) {
      if (!outcome) {
        outcome.emplace(std::move(how));
        come.notify();
      }
    }
  };

  explicit Session(Place of) : place(std::move(of)) {}

  Place place;
  Gate gate;
  std::size_t waiting = 0;
  std::unique_ptr<Interpreter> interpreter;
  std::weak_ptr<Opening> opening;
  std::weak_ptr<CodeRun::State> running;
  std::uint64_t uses = 0;  // so that an idle one is told from one that was used again
};

// Kept by the run's callbacks until the session is free again, also when nobody wants the outcome.
struct CodeRun::State {
  std::deque<std::pair<CodeEvent, std::size_t>> events;  // with what each counts
  std::size_t held = 0;
  bool cut = false;
  bool over = false;
  Signal come;
  std::shared_ptr<CodeSessions::Session> session;
  std::optional<Gate::Pass> pass;

  // `size`: of what it carries, beside what it is.
  void add(CodeEvent event, std::size_t size) {
    size += sizeof(CodeEvent);
    if (held + size > kHeld) {
      cut = true;
      return;
    }
    held += size;
    events.emplace_back(std::move(event), size);
    come.notify();
  }
  void end(CodeEvent event) {
    over = true;
    events.emplace_back(std::move(event), 0);
    come.notify();
    pass.reset();
  }
};

CodeRun::CodeRun(std::shared_ptr<State> state) : state_(std::move(state)) {}

CodeRun::~CodeRun() {
  if (state_) {
    interrupt();
  }
}

void CodeRun::interrupt() {
  if (!state_->over && state_->session->interpreter) {
    state_->session->interpreter->interrupt();
  }
}

bool CodeRun::cut() const {
  return state_->cut;
}

Async<CodeEvent> CodeRun::next() {
  const auto state = state_;
  while (state->events.empty()) {
    co_await state->come.wait();
  }
  auto [event, size] = std::move(state->events.front());
  state->events.pop_front();
  state->held -= size;
  co_return event;
}

CodeSessions::CodeSessions(asio::any_io_executor executor, std::shared_ptr<const Guest> guest)
    : executor_(std::move(executor)),
      guest_(std::move(guest)),
      host_(guest_->io(), guest_->opener()) {}

CodeSessions::~CodeSessions() {
  for (auto& [place, session] : sessions_) {
    session->interpreter.reset();
    if (const auto running = session->running.lock(); running && !running->over) {
      running->end(Problem{Reason::kFailed, "the sandbox ended while the code ran", std::nullopt});
    }
  }
}

Async<Outcome<std::vector<ListedSession>>> CodeSessions::list() const {
  const auto guest = guest_;
  co_return co_await guest->ask<std::vector<ListedSession>>(
      [](protocol::Requests& requests, protocol::Requests::Done<std::vector<ListedSession>> done) {
        protocol::list_sessions(requests, std::move(done));
      });
}

// With an interpreter that answers. What is stuck is begun anew.
Async<Outcome<void>> CodeSessions::open(std::shared_ptr<Session> session) {
  using State = Interpreter::State;
  if (session->interpreter && session->interpreter->state() == State::kIdle) {
    co_return Outcome<void>();
  }
  const auto opening = std::make_shared<Session::Opening>();
  session->opening = opening;
  const auto on_ready = [opening, language = session->place.first](Result<std::string> version) {
    opening->end(version ? Outcome<void>()
                         : refuse(Reason::kFailed, "{} cannot run code in this sandbox: {}",
                                  protocol::name_of(language), version.error().message));
  };
  if (session->interpreter && session->interpreter->state() == State::kStuck) {
    if (auto restarted = session->interpreter->restart(on_ready); !restarted) {
      co_return refuse(Reason::kFailed, restarted.error());
    }
  } else {
    session->interpreter.reset();  // it ended, or somebody left while it was being opened
    const auto listed = co_await list();
    if (!listed) {
      co_return std::unexpected(listed.error());
    }
    auto made = make(session->place, *listed, on_ready);
    if (!made) {
      co_return std::unexpected(made.error());
    }
    session->interpreter = std::move(*made);
  }
  // It gives up by itself (SessionSpec::start_timeout).
  while (!opening->outcome) {
    co_await opening->come.wait();
  }
  if (!*opening->outcome) {
    session->interpreter.reset();
  } else if (!session->interpreter) {
    co_return session_closed();
  }
  co_return *opening->outcome;
}

// Takes up the session that there is, or begins one.
Outcome<std::unique_ptr<Interpreter>> CodeSessions::make(const Place& place,
                                                         const std::vector<ListedSession>& listed,
                                                         const Interpreter::Ready& ready) {
  const auto& [language, name] = place;
  const auto found = std::ranges::find_if(listed, [&](const ListedSession& one) {
    return one.language == place.first && one.name == place.second &&
           one.state != ListedSession::State::kEnded;
  });
  if (found != listed.end() && found->state == ListedSession::State::kInUse) {
    return refuse(Reason::kConflict,
                  "the {} session '{}' is in use by another program; take another name for yours",
                  protocol::name_of(language), name);
  }
  const Surroundings& around = guest_->around();
  protocol::SessionSpec spec;
  spec.language = language;
  spec.name = name;
  spec.user = around.user;
  spec.directory = around.directory.empty() ? "/" : around.directory;
  spec.variables = around.environment;
  auto made = found != listed.end()
                  ? Interpreter::attach(host_, std::move(spec), found->process, ready)
                  : Interpreter::open(host_, std::move(spec), ready);
  if (!made) {
    return refuse(Reason::kInvalid, made.error());
  }
  return std::move(*made);
}

// Null when there are too many.
std::shared_ptr<CodeSessions::Session> CodeSessions::find(const Place& place) {
  if (const auto found = sessions_.find(place); found != sessions_.end()) {
    return found->second;
  }
  if (sessions_.size() >= kMaxSessions) {
    std::erase_if(sessions_, [](const auto& one) {
      return one.second->waiting == 0 && !one.second->interpreter;
    });
  }
  if (sessions_.size() >= kMaxSessions) {
    return nullptr;
  }
  return sessions_.emplace(place, std::make_shared<Session>(place)).first->second;
}

Async<Outcome<CodeRun>> CodeSessions::run(CodeWords words) {
  const auto session = find({words.language, words.session});
  if (!session) {
    co_return std::unexpected(
        Problem{Reason::kFull,
                fmt::format("there are {} sessions in this sandbox already: close some of them",
                            kMaxSessions),
                static_cast<unsigned>(kIdle.count())});
  }
  if (session->waiting >= kMaxWaiting) {
    co_return std::unexpected(
        Problem{Reason::kFull,
                fmt::format("{} runs wait for the {} session '{}' already", kMaxWaiting,
                            protocol::name_of(words.language), words.session),
                1});
  }
  const auto state = std::make_shared<CodeRun::State>();
  state->session = session;
  {
    ++session->waiting;
    struct Leave {
      std::size_t& waiting;
      ~Leave() { --waiting; }
    };
    const Leave leave{session->waiting};
    state->pass.emplace(co_await session->gate.enter());
  }
  ++session->uses;
  if (auto opened = co_await open(session); !opened) {
    co_return std::unexpected(opened.error());
  }
  const auto started = session->interpreter->run(
      words.code, words.timeout,
      {.output =
           [state](std::string_view text) {
             state->add(CodeOutput{false, std::string(text)}, text.size());
           },
       .error_output =
           [state](std::string_view text) {
             state->add(CodeOutput{true, std::string(text)}, text.size());
           },
       .display =
           [state](const protocol::Representations& value) {
             std::size_t size = 0;
             for (const auto& [type, data] : value.data) {
               size += data.size();
             }
             state->add(CodeValue{false, value.data}, size);
           },
       .result =
           [state](const protocol::Representations& value) {
             std::size_t size = 0;
             for (const auto& [type, data] : value.data) {
               size += data.size();
             }
             state->add(CodeValue{true, value.data}, size);
           },
       .error =
           [state](const protocol::RunError& error) { state->add(error, error.message.size()); },
       .done =
           [state, executor = executor_](const protocol::RunOutcome& outcome) {
             let_go_later(executor, state->session);
             state->end(outcome);
           }});
  if (!started) {
    co_return refuse(Reason::kInvalid, started.error());
  }
  session->running = state;
  co_return CodeRun(state);
}

// To be called from inside the interpreter's callbacks too, so nothing is destroyed at once.
void CodeSessions::let_go_later(const asio::any_io_executor& executor,
                                const std::shared_ptr<Session>& session) {
  const auto wait = [](std::weak_ptr<Session> weak, std::uint64_t uses) -> Async<> {
    Signal never;
    co_await never.wait(Signal::Clock::now() + kIdle);
    const auto idle = weak.lock();
    if (idle && idle->uses == uses && idle->interpreter &&
        idle->interpreter->state() != Interpreter::State::kRunning) {
      idle->interpreter.reset();
    }
  };
  asio::co_spawn(executor, wait(session, session->uses), Unattended());
}

Async<Outcome<void>> CodeSessions::close(protocol::Language language, const std::string& name) {
  const auto guest = guest_;
  const auto listed = co_await list();
  if (!listed) {
    co_return std::unexpected(listed.error());
  }
  const auto found = std::ranges::find_if(*listed, [&](const ListedSession& one) {
    return one.language == language && one.name == name;
  });
  if (found == listed->end()) {
    co_return refuse(Reason::kNotFound, "there is no {} session '{}'", protocol::name_of(language),
                     name);
  }
  const std::uint32_t process = found->process;
  if (const auto place = sessions_.find({language, name}); place != sessions_.end()) {
    place->second->interpreter.reset();
    if (const auto opening = place->second->opening.lock()) {
      opening->end(session_closed());
    }
    if (const auto running = place->second->running.lock(); running && !running->over) {
      running->end(session_closed().error());
    }
  }
  // Named, for g++ 12 destroys what a function object in a co_await expression has captured twice.
  const std::function<void(protocol::Requests&, protocol::Requests::Done<void>)> kill =
      [process](protocol::Requests& requests, protocol::Requests::Done<void> done) {
        requests.signal(process, SIGKILL, true, std::move(done));
      };
  if (auto killed = co_await guest->ask<void>(kill); !killed) {
    co_return killed;
  }
  const std::function<void(protocol::Requests&, protocol::Requests::Done<protocol::Exited>)> wait =
      [process](protocol::Requests& requests, protocol::Requests::Done<protocol::Exited> done) {
        requests.wait(process, std::move(done));
      };
  const auto ended = co_await guest->ask<protocol::Exited>(wait);
  if (!ended) {
    co_return std::unexpected(ended.error());
  }
  const std::function<void(protocol::Requests&, protocol::Requests::Done<void>)> forget =
      [process](protocol::Requests& requests, protocol::Requests::Done<void> done) {
        requests.forget(process, std::move(done));
      };
  co_return co_await guest->ask<void>(forget);
}

Outcome<void> CodeSessions::interrupt(protocol::Language language, const std::string& name) {
  const auto place = sessions_.find({language, name});
  const auto running = place == sessions_.end() ? nullptr : place->second->running.lock();
  if (!running || running->over || !place->second->interpreter) {
    return refuse(Reason::kNotFound, "nothing runs in the {} session '{}'",
                  protocol::name_of(language), name);
  }
  place->second->interpreter->interrupt();
  return {};
}

}  // namespace msb::server
