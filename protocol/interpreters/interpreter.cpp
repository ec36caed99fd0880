// SPDX-License-Identifier: Apache-2.0
#include "protocol/interpreters/interpreter.hpp"

#include <csignal>
#include <random>
#include <utility>

namespace msb::protocol {
namespace {

template <typename Function, typename... Args>
void call(const Function& function, const Args&... args) {
  if (function) {
    function(args...);
  }
}

SessionEnd lost(std::string reason) {
  return {.kind = SessionEnd::Kind::kLost, .reason = std::move(reason)};
}

std::string sentence(const SessionEnd& end) {
  switch (end.kind) {
    case SessionEnd::Kind::kExited:
      return fmt::format("the session's process exited with status {}", end.value);
    case SessionEnd::Kind::kSignalled:
      return fmt::format("signal {} ended the session's process", end.value);
    case SessionEnd::Kind::kLost:
      return end.reason;
  }
  std::unreachable();
}

}  // namespace

// Shared with the events of its processes and timers, which hold it weakly: each of its entrances
// keeps it alive until it returns, whatever a callback does to its Interpreter.
class Interpreter::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(SessionHost& host, SessionSpec spec) : host_(host), spec_(std::move(spec)) {
    // Not counted from 1: what an earlier host's requests still bring must not fit one of these.
    std::random_device random;
    next_id_ = 1 + random() % (kMaxSessionId / 2);
  }

  Result<void> start(std::optional<std::uint32_t> process, Ready ready);
  Result<void> run(std::string_view code, std::chrono::milliseconds timeout,
                   RunCallbacks callbacks);
  void interrupt();
  Result<void> restart(Ready ready);
  void close(std::function<void()> closed);
  void let_go();
  [[nodiscard]] State state() const { return state_; }

 private:
  struct Run {
    std::uint32_t id = 0;
    RunCallbacks callbacks;
    bool started = false;  // an interrupt before that could hit the driver
    bool interrupt_wanted = false;
    bool timed_out = false;
    bool failed = false;
    std::optional<std::uint32_t> exit;
  };

  SessionProcess::Events events();
  template <typename Method>
  std::function<void()> guarded(Method method);

  void on_channel(std::span<const std::byte> bytes);
  void on_message(const SessionMessage& message);
  void on_ready(const SessionMessage& message);
  void on_done(const SessionMessage& message);
  void on_output(std::string_view bytes, bool error);
  void on_ended(const SessionEnd& end);

  void send_interrupt();
  void interrupt_group();
  void signal(bool group);
  void on_signalled();
  void on_timeout();
  void on_grace_over();
  void fail_start(Error error);
  void finish_run(const RunOutcome& outcome);
  void end(const SessionEnd& end);
  void drop_process();
  std::uint32_t take_id();

  SessionHost& host_;
  SessionSpec spec_;
  State state_ = State::kEnded;
  std::unique_ptr<SessionProcess> process_;
  std::uint64_t generation_ = 0;  // of process_: what comes from an earlier one is nobody's
  bool attached_ = false;         // process_ was running before
  SessionMessageDecoder decoder_;
  std::uint32_t next_id_ = 0;
  std::uint32_t hello_id_ = 0;
  Ready ready_;
  std::optional<Run> run_;
  std::uint32_t stuck_id_ = 0;  // of the run that was given up
  // A signal that is on its way must have arrived before the next run begins, or would hit that.
  std::size_t signals_under_way_ = 0;
  std::string waiting_;                       // for that: the next run, encoded
  std::unique_ptr<SessionTimer> timer_;       // of starting, of a run's timeout, of closing
  std::unique_ptr<SessionTimer> grace_;       // of an interrupt
  std::unique_ptr<SessionTimer> escalation_;  // half of it
  std::function<void()> closed_;
};

// ---- Starting.

Result<void> Interpreter::Session::start(std::optional<std::uint32_t> process, Ready ready) {
  auto label = encode_label(spec_.language, spec_.name);
  if (!label) {
    return std::unexpected(label.error());
  }
  drop_process();
  auto started = process ? host_.attach(*process, events())
                         : host_.start({.label = *std::move(label),
                                        .user = spec_.user,
                                        .directory = spec_.directory,
                                        .arguments = session_arguments(spec_.language),
                                        .variables = spec_.variables},
                                       events());
  if (!started) {
    state_ = State::kEnded;
    return std::unexpected(started.error());
  }
  process_ = *std::move(started);
  state_ = State::kStarting;
  attached_ = process.has_value();
  ready_ = std::move(ready);
  hello_id_ = take_id();
  decoder_ = {};
  decoder_.seek_ready(hello_id_);
  if (!process) {
    process_->write_channel(session_greeting(spec_.language));
    timer_ = host_.after(spec_.start_timeout, guarded([](Session& session) {
                           session.fail_start(
                               Error{"the interpreter was started and does not answer; its output "
                                     "on standard error may say why"});
                         }));
  }
  process_->write_channel(encode_hello(spec_.language, hello_id_));
  return {};
}

void Interpreter::Session::on_ready(const SessionMessage& message) {
  if (state_ != State::kStarting || message.id != hello_id_) {
    return;
  }
  timer_.reset();
  grace_.reset();
  escalation_.reset();
  state_ = State::kIdle;
  call(std::exchange(ready_, {}), Result<std::string>(message.version));
}

void Interpreter::Session::fail_start(Error error) {
  process_->kill();
  drop_process();
  state_ = State::kEnded;
  call(std::exchange(ready_, {}), Result<std::string>(std::unexpected(std::move(error))));
}

// ---- Runs.

Result<void> Interpreter::Session::run(std::string_view code, std::chrono::milliseconds timeout,
                                       RunCallbacks callbacks) {
  switch (state_) {
    case State::kIdle:
      break;
    case State::kStarting:
      return fail("the session {} is not ready yet", spec_.name);
    case State::kRunning:
      return fail("the session {} has a run under way", spec_.name);
    case State::kStuck:
      return fail("the session {} still executes a run that could not be interrupted: restart it",
                  spec_.name);
    case State::kClosing:
    case State::kEnded:
      return fail("the session {} has ended: restart it", spec_.name);
  }
  const std::uint32_t id = take_id();
  auto bytes = encode_run(spec_.language, id, code);
  if (!bytes) {
    return std::unexpected(bytes.error());
  }
  run_ = Run{.id = id, .callbacks = std::move(callbacks)};
  state_ = State::kRunning;
  if (timeout > std::chrono::milliseconds::zero()) {
    timer_ = host_.after(timeout, guarded([](Session& session) { session.on_timeout(); }));
  }
  if (signals_under_way_ > 0) {
    waiting_ = *std::move(bytes);
  } else {
    process_->write_channel(*bytes);
  }
  return {};
}

void Interpreter::Session::on_message(const SessionMessage& message) {
  using Operation = SessionMessage::Operation;
  if (message.operation == Operation::kReady) {
    on_ready(message);
    return;
  }
  if (state_ == State::kStarting) {
    return;
  }
  const bool of_run = run_ && message.id == run_->id;
  if (message.operation == Operation::kDisplay && (of_run || message.id == 0)) {
    const Representations value{message.data, message.cut};
    // A copy: the callback may end the run, or the session, and it with them.
    const auto display = run_ && run_->callbacks.display ? run_->callbacks.display : spec_.display;
    call(display, value);
    return;
  }
  if (message.operation == Operation::kDone && stuck_id_ != 0 && message.id == stuck_id_) {
    stuck_id_ = 0;
    state_ = State::kIdle;
    return;
  }
  if (!of_run) {
    return;
  }
  switch (message.operation) {
    case Operation::kStarted:
      run_->started = true;
      if (std::exchange(run_->interrupt_wanted, false)) {
        send_interrupt();
      }
      break;
    case Operation::kResult: {
      const auto result = run_->callbacks.result;
      call(result, Representations{message.data, message.cut});
      break;
    }
    case Operation::kError: {
      run_->failed = true;
      run_->exit = message.exit;
      const auto error = run_->callbacks.error;
      call(error, RunError{message.name, message.message, message.traceback, message.exit});
      break;
    }
    case Operation::kDone:
      on_done(message);
      break;
    case Operation::kReady:
    case Operation::kDisplay:
      break;
  }
}

void Interpreter::Session::on_done(const SessionMessage& message) {
  RunOutcome outcome{.timed_out = run_->timed_out,
                     .failed = run_->failed || message.status.value_or(0) != 0,
                     .status = message.status,
                     .exit = message.exit ? message.exit : run_->exit};
  // It may have ended by itself just before; then it has not failed.
  if (grace_ && outcome.failed) {
    outcome.kind = RunOutcome::Kind::kInterrupted;
  }
  state_ = State::kIdle;
  finish_run(outcome);
}

void Interpreter::Session::finish_run(const RunOutcome& outcome) {
  timer_.reset();
  grace_.reset();
  escalation_.reset();
  waiting_.clear();
  const auto done = std::move(run_->callbacks.done);
  run_.reset();
  call(done, outcome);
}

// ---- Interrupts.

void Interpreter::Session::interrupt() {
  // Of an interpreter that has not set itself up yet a signal would be the end.
  const bool anothers_run = state_ == State::kStarting && attached_;
  if (state_ != State::kRunning && state_ != State::kStuck && !anothers_run) {
    return;
  }
  if (!grace_) {
    grace_ = host_.after(spec_.grace, guarded([](Session& session) { session.on_grace_over(); }));
    escalation_ =
        host_.after(spec_.grace / 2, guarded([](Session& session) { session.interrupt_group(); }));
  }
  if (run_ && !run_->started) {
    run_->interrupt_wanted = true;
    return;
  }
  send_interrupt();
}

void Interpreter::Session::send_interrupt() {
  switch (interrupted_by(spec_.language)) {
    case InterruptBy::kMessage:
      // The id of an earlier host's run is not known; 0 stands for any.
      process_->write_channel(encode_interrupt(run_ ? run_->id : stuck_id_));
      break;
    case InterruptBy::kSignal:
      signal(false);
      break;
    case InterruptBy::kGroupSignal:
      signal(true);
      break;
  }
}

void Interpreter::Session::interrupt_group() {
  // Half of the grace is over: it may wait for a program that it started.
  if (!run_ || run_->started) {
    signal(true);
  }
}

void Interpreter::Session::signal(bool group) {
  ++signals_under_way_;
  process_->signal(SIGINT, group, guarded([](Session& session) { session.on_signalled(); }));
}

void Interpreter::Session::on_signalled() {
  --signals_under_way_;
  if (signals_under_way_ == 0 && !waiting_.empty()) {
    process_->write_channel(std::exchange(waiting_, {}));
  }
}

void Interpreter::Session::on_timeout() {
  run_->timed_out = true;
  interrupt();
}

void Interpreter::Session::on_grace_over() {
  if (!run_) {
    grace_.reset();  // still starting, or still stuck: interrupt() can be tried again
    return;
  }
  stuck_id_ = run_->id;
  state_ = State::kStuck;
  finish_run({.kind = RunOutcome::Kind::kStuck,
              .timed_out = run_->timed_out,
              .failed = true,
              .reason = fmt::format("the code did not end within {} ms after it was interrupted: "
                                    "restart the session, or wait",
                                    spec_.grace.count())});
}

// ---- What the process says.

SessionProcess::Events Interpreter::Session::events() {
  const auto receiver = [weak = weak_from_this(), generation = generation_](auto method) {
    return [weak, generation, method](const auto&... args) {
      const auto session = weak.lock();
      if (session && session->generation_ == generation) {
        method(*session, args...);
      }
    };
  };
  return {
      .channel = receiver([](Session& session, auto bytes) { session.on_channel(bytes); }),
      .output = receiver([](Session& session, auto bytes) { session.on_output(bytes, false); }),
      .error_output =
          receiver([](Session& session, auto bytes) { session.on_output(bytes, true); }),
      .ended = receiver([](Session& session, const auto& end) { session.on_ended(end); }),
  };
}

// A function that does nothing once the session, or the process that it was made for, is gone.
template <typename Method>
std::function<void()> Interpreter::Session::guarded(Method method) {
  return [weak = weak_from_this(), generation = generation_, method] {
    const auto session = weak.lock();
    if (session && session->generation_ == generation) {
      method(*session);
    }
  };
}

void Interpreter::Session::on_channel(std::span<const std::byte> bytes) {
  const std::uint64_t generation = generation_;
  while (!bytes.empty() && generation_ == generation) {
    const auto message = decoder_.next(bytes);
    if (!message) {
      process_->kill();
      end(lost(message.error().message));
      return;
    }
    if (*message) {
      on_message(**message);
    }
  }
}

void Interpreter::Session::on_output(std::string_view bytes, bool error) {
  std::function<void(std::string_view)> function;  // a copy, for it may end what it belongs to
  if (run_) {
    function = error ? run_->callbacks.error_output : run_->callbacks.output;
  } else {
    function = error ? spec_.error_output : spec_.output;
  }
  call(function, bytes);
}

void Interpreter::Session::on_ended(const SessionEnd& end_of_process) {
  if (state_ == State::kClosing) {
    process_->kill();  // of what it left behind, and to forget it
    drop_process();
    state_ = State::kEnded;
    call(std::exchange(closed_, {}));
    return;
  }
  if (end_of_process.kind != SessionEnd::Kind::kLost) {
    process_->kill();
  }
  end(end_of_process);
}

void Interpreter::Session::end(const SessionEnd& end) {
  drop_process();
  state_ = State::kEnded;
  const auto ended = spec_.ended;
  if (ready_) {
    call(std::exchange(ready_, {}), Result<std::string>(fail("{}", sentence(end))));
  }
  if (run_) {
    finish_run({.kind = RunOutcome::Kind::kEnded,
                .timed_out = run_->timed_out,
                .failed = true,
                .reason = sentence(end)});
  }
  call(ended, end);
}

// ---- Ends.

Result<void> Interpreter::Session::restart(Ready ready) {
  if (process_) {
    process_->kill();
  }
  const auto ended = std::exchange(run_, std::nullopt);
  ready_ = {};
  auto started = start(std::nullopt, std::move(ready));
  if (ended) {
    call(ended->callbacks.done, RunOutcome{.kind = RunOutcome::Kind::kEnded,
                                           .timed_out = ended->timed_out,
                                           .failed = true,
                                           .reason = "the session was restarted"});
  }
  return started;
}

void Interpreter::Session::close(std::function<void()> closed) {
  if (!process_) {
    call(closed);
    return;
  }
  state_ = State::kClosing;
  closed_ = std::move(closed);
  ready_ = {};
  process_->end_channel();
  if (run_) {
    finish_run({.kind = RunOutcome::Kind::kEnded,
                .timed_out = run_->timed_out,
                .failed = true,
                .reason = "the session was closed"});
  }
  timer_ = host_.after(spec_.grace, guarded([](Session& session) { session.on_ended({}); }));
}

void Interpreter::Session::drop_process() {
  ++generation_;
  timer_.reset();
  grace_.reset();
  escalation_.reset();
  process_.reset();
  waiting_.clear();
  signals_under_way_ = 0;
  stuck_id_ = 0;
}

void Interpreter::Session::let_go() {
  drop_process();
  run_.reset();
  ready_ = {};
  closed_ = {};
  state_ = State::kEnded;
}

std::uint32_t Interpreter::Session::take_id() {
  const std::uint32_t id = next_id_;
  next_id_ = id == kMaxSessionId ? 1 : id + 1;
  return id;
}

// ---- The handle.

Interpreter::Interpreter(std::shared_ptr<Session> session) : session_(std::move(session)) {}
Interpreter::~Interpreter() {
  session_->let_go();
}

Result<std::unique_ptr<Interpreter>> Interpreter::open(SessionHost& host, SessionSpec spec,
                                                       Ready ready) {
  auto session = std::make_shared<Session>(host, std::move(spec));
  if (auto started = session->start(std::nullopt, std::move(ready)); !started) {
    return std::unexpected(started.error());
  }
  return std::unique_ptr<Interpreter>(new Interpreter(std::move(session)));
}

Result<std::unique_ptr<Interpreter>> Interpreter::attach(SessionHost& host, SessionSpec spec,
                                                         std::uint32_t process, Ready ready) {
  auto session = std::make_shared<Session>(host, std::move(spec));
  if (auto started = session->start(process, std::move(ready)); !started) {
    return std::unexpected(started.error());
  }
  return std::unique_ptr<Interpreter>(new Interpreter(std::move(session)));
}

// Each keeps the session until it returns: a callback may destroy the handle meanwhile.
Result<void> Interpreter::run(std::string_view code, std::chrono::milliseconds timeout,
                              RunCallbacks callbacks) {
  return session_->run(code, timeout, std::move(callbacks));
}

void Interpreter::interrupt() {
  session_->interrupt();
}

Result<void> Interpreter::restart(Ready ready) {
  const auto session = session_;
  return session->restart(std::move(ready));
}

void Interpreter::close(std::function<void()> closed) {
  const auto session = session_;
  session->close(std::move(closed));
}

Interpreter::State Interpreter::state() const {
  return session_->state();
}

}  // namespace msb::protocol
