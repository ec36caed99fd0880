// SPDX-License-Identifier: Apache-2.0
#include "protocol/interpreters/interpreter.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <list>
#include <utility>

using namespace msb::protocol;
using namespace std::chrono_literals;
using msb::Result;
using State = Interpreter::State;
using Kind = RunOutcome::Kind;

namespace {

std::string framed(std::string_view json) {
  std::string bytes;
  for (unsigned shift = 0; shift < 32; shift += 8) {
    bytes.push_back(static_cast<char>(json.size() >> shift & 0xff));
  }
  return bytes.append(json);
}

// What a session did to one process, and the way to make that process speak.
struct Script {
  SessionProcess::Events events;
  SessionStart start;
  std::string written;
  std::vector<std::pair<int, bool>> signals;
  std::vector<std::function<void()>> unanswered;
  bool channel_ended = false;
  bool killed = false;
  bool let_go = false;

  void say(std::string_view bytes) const {
    const auto channel = events.channel;
    channel(std::as_bytes(std::span(bytes)));
  }
  void message(std::string_view json) const { say(framed(json)); }
  // The id in the last request.
  [[nodiscard]] std::string id() const {
    std::size_t at = 0;
    for (const std::string_view before : {"\"id\":", "__msb_begin ", "__msb_hello "}) {
      const auto found = written.rfind(before);
      if (found != std::string::npos) {
        at = std::max(at, found + before.size());
      }
    }
    return written.substr(at, written.find_first_not_of("0123456789", at) - at);
  }
  void ready() const { message(fmt::format(R"({{"op":"ready","id":{},"version":"9"}})", id())); }
  void reply(std::string_view operation, std::string_view more = "") const {
    message(fmt::format(R"({{"op":"{}","id":{}{}}})", operation, id(), more));
  }
  void answer_signals() {
    for (const auto& answered : std::exchange(unanswered, {})) {
      answered();
    }
  }
};

class ScriptedProcess final : public SessionProcess {
 public:
  explicit ScriptedProcess(Script& script) : script_(script) {}
  ~ScriptedProcess() override { script_.let_go = true; }
  void write_channel(std::string_view bytes) override { script_.written += bytes; }
  void end_channel() override { script_.channel_ended = true; }
  void signal(int number, bool group, std::function<void()> answered) override {
    script_.signals.emplace_back(number, group);
    script_.unanswered.push_back(std::move(answered));
  }
  void kill() override { script_.killed = true; }

 private:
  Script& script_;
};

class ScriptedHost final : public SessionHost {
 public:
  Result<std::unique_ptr<SessionProcess>> start(const SessionStart& start,
                                                SessionProcess::Events events) override {
    if (refuse) {
      return msb::fail("refused");
    }
    auto& script = processes.emplace_back();
    script.start = start;
    script.events = std::move(events);
    return std::make_unique<ScriptedProcess>(script);
  }
  Result<std::unique_ptr<SessionProcess>> attach(std::uint32_t process,
                                                 SessionProcess::Events events) override {
    attached_to = process;
    return start({}, std::move(events));
  }
  std::unique_ptr<SessionTimer> after(std::chrono::milliseconds delay,
                                      std::function<void()> function) override {
    struct Timer final : SessionTimer {
      Timer(std::list<Pending>& l, std::list<Pending>::iterator i) : list(l), at(i) {}
      ~Timer() override { list.erase(at); }
      std::list<Pending>& list;
      std::list<Pending>::iterator at;
    };
    timers.push_back({delay, std::move(function)});
    return std::make_unique<Timer>(timers, std::prev(timers.end()));
  }

  Script& last() { return processes.back(); }
  // Runs the timer of that delay; whether there is one.
  bool fire(std::chrono::milliseconds delay) {
    for (const auto& timer : timers) {
      if (timer.delay == delay) {
        const auto function = timer.function;
        function();
        return true;
      }
    }
    return false;
  }

  struct Pending {
    std::chrono::milliseconds delay;
    std::function<void()> function;
  };
  std::list<Script> processes;
  std::list<Pending> timers;
  std::uint32_t attached_to = 0;
  bool refuse = false;
};

struct Fixture {
  ScriptedHost host;
  std::vector<std::string> log;  // what came out, in order
  std::optional<RunOutcome> outcome;
  std::unique_ptr<Interpreter> session;

  SessionSpec spec(Language language = Language::kPython) {
    return {.language = language,
            .name = "main",
            .output = [this](auto bytes) { log.push_back(fmt::format("idle out {}", bytes)); },
            .display = [this](const auto&) { log.emplace_back("idle display"); },
            .ended = [this](const auto&) { log.emplace_back("ended"); }};
  }
  Interpreter::Ready ready() {
    return [this](const Result<std::string>& version) {
      log.push_back(version ? "ready " + *version : "not ready: " + version.error().message);
    };
  }
  void open(Language language = Language::kPython) {
    auto opened = Interpreter::open(host, spec(language), ready());
    REQUIRE(opened);
    session = *std::move(opened);
    host.last().ready();
    REQUIRE(session->state() == State::kIdle);
    log.clear();
  }
  RunCallbacks callbacks() {
    return {
        .output = [this](auto bytes) { log.push_back(fmt::format("out {}", bytes)); },
        .error_output = [this](auto bytes) { log.push_back(fmt::format("err {}", bytes)); },
        .display = [this](const auto& v) { log.push_back("display " + v.data.at("text/plain")); },
        .result = [this](const auto& v) { log.push_back("result " + v.data.at("text/plain")); },
        .error = [this](const auto& error) { log.push_back("error " + error.name); },
        .done =
            [this](const auto& o) {
              outcome = o;
              log.emplace_back("done");
            },
    };
  }
  void run(std::string_view code = "1", std::chrono::milliseconds timeout = 0ms) {
    outcome.reset();
    REQUIRE(session->run(code, timeout, callbacks()));
  }
};

using Log = std::vector<std::string>;

}  // namespace

TEST_CASE_FIXTURE(Fixture, "open starts the interpreter under its label and waits for its answer") {
  auto opened = Interpreter::open(host, spec(), ready());
  REQUIRE(opened);
  CHECK(host.last().start.label == "session:python:main");
  CHECK(host.last().start.arguments.front() == "python3");
  CHECK((*opened)->state() == State::kStarting);
  CHECK_FALSE((*opened)->run("1", 0ms, {}));
  host.last().message(R"({"op":"ready","id":0,"version":"forged"})");
  CHECK(log.empty());
  host.last().ready();
  CHECK(log == Log{"ready 9"});
  CHECK((*opened)->state() == State::kIdle);
}

TEST_CASE_FIXTURE(Fixture, "an interpreter that does not answer is killed and said so") {
  auto opened = Interpreter::open(host, spec(), ready());
  REQUIRE(opened);
  REQUIRE(host.fire(180s));
  CHECK(host.last().killed);
  REQUIRE(log.size() == 1);
  CHECK(log[0].starts_with("not ready: the interpreter was started and does not answer"));
  CHECK((*opened)->state() == State::kEnded);
}

TEST_CASE_FIXTURE(Fixture, "an interpreter that is missing is said so") {
  auto opened = Interpreter::open(host, spec(), ready());
  REQUIRE(opened);
  const auto ended = host.last().events.ended;
  ended({.kind = SessionEnd::Kind::kLost, .reason = "no python3"});
  CHECK(log == Log{"not ready: no python3", "ended"});
  CHECK_FALSE(host.last().killed);
  host.refuse = true;
  CHECK_FALSE(Interpreter::open(host, spec(), ready()));
  CHECK_FALSE((*opened)->restart(ready()));
}

TEST_CASE_FIXTURE(Fixture, "a run reports output, displays, value and end in their order") {
  open();
  run();
  auto& process = host.last();
  process.reply("started");
  process.events.output("a");
  process.events.error_output("b");
  process.reply("display", R"(,"data":{"text/plain":"d"})");
  process.reply("result", R"(,"data":{"text/plain":"r"})");
  CHECK(session->state() == State::kRunning);
  CHECK_FALSE(session->run("2", 0ms, {}));
  process.reply("done");
  CHECK(log == Log{"out a", "err b", "display d", "result r", "done"});
  CHECK(outcome->kind == Kind::kDone);
  CHECK_FALSE(outcome->failed);
  CHECK(session->state() == State::kIdle);
  process.events.output("c");
  process.message(R"({"op":"display","id":0,"data":{}})");
  CHECK(log.back() == "idle display");
  CHECK(log[log.size() - 2] == "idle out c");
}

TEST_CASE_FIXTURE(Fixture, "an error makes the run failed and leaves the session") {
  open();
  run();
  host.last().reply("started");
  host.last().reply("error", R"(,"name":"SystemExit","exit":4)");
  host.last().reply("done");
  CHECK(log == Log{"error SystemExit", "done"});
  CHECK(outcome->kind == Kind::kDone);
  CHECK(outcome->failed);
  CHECK(outcome->exit == 4);
  run();
  CHECK(session->state() == State::kRunning);
}

TEST_CASE_FIXTURE(Fixture, "a shell's run has its exit status") {
  open(Language::kShell);
  CHECK(host.last().written.starts_with("eval \"$MSB_DRIVER\"\n__msb_hello "));
  run("false");
  host.last().reply("started");
  host.last().reply("done", R"(,"status":1)");
  CHECK(outcome->status == 1);
  CHECK(outcome->failed);
}

TEST_CASE_FIXTURE(Fixture, "messages of other runs and forged ends are nobody's") {
  open();
  run();
  host.last().message(R"({"op":"done","id":2147483647})");
  host.last().message(R"({"op":"result","id":0,"data":{"text/plain":"x"}})");
  CHECK(log.empty());
  host.last().reply("done");
  host.last().reply("done");
  CHECK(log == Log{"done"});
}

TEST_CASE_FIXTURE(Fixture, "what is no message ends the session") {
  open();
  run();
  host.last().message("nonsense");
  CHECK(log == Log{"done", "ended"});
  CHECK(outcome->kind == Kind::kEnded);
  CHECK(outcome->reason.contains("wrong form"));
  CHECK(host.last().killed);
  CHECK(session->state() == State::kEnded);
}

TEST_CASE_FIXTURE(Fixture, "an interrupt waits until the code has started") {
  open();
  run();
  session->interrupt();
  CHECK(host.last().signals.empty());
  host.last().reply("started");
  CHECK(host.last().signals == std::vector<std::pair<int, bool>>{{SIGINT, false}});
  REQUIRE(host.fire(1s));
  CHECK(host.last().signals.back() == std::pair{SIGINT, true});
  host.last().reply("error", R"(,"name":"KeyboardInterrupt")");
  host.last().reply("done");
  CHECK(outcome->kind == Kind::kInterrupted);
  CHECK_FALSE(outcome->timed_out);
  CHECK(host.timers.empty());
}

TEST_CASE_FIXTURE(Fixture, "the next run waits for a signal that is under way") {
  open();
  run();
  host.last().reply("started");
  session->interrupt();
  host.last().reply("done");  // it had ended just before
  CHECK(outcome->kind == Kind::kDone);
  const auto before = host.last().written;
  run("2");
  CHECK(host.last().written == before);
  host.last().answer_signals();
  CHECK(host.last().written.size() > before.size());
  host.last().reply("done");
  CHECK(outcome->kind == Kind::kDone);
}

TEST_CASE_FIXTURE(Fixture, "a shell's group gets the interrupt, JavaScript a message") {
  open(Language::kShell);
  run();
  host.last().reply("started");
  session->interrupt();
  CHECK(host.last().signals == std::vector<std::pair<int, bool>>{{SIGINT, true}});

  open(Language::kJavascript);
  run();
  host.last().reply("started");
  session->interrupt();
  CHECK(host.last().signals.empty());
  CHECK(host.last().written.contains(R"("op":"interrupt")"));
}

TEST_CASE_FIXTURE(Fixture, "a timeout interrupts, and says so") {
  open();
  run("while True: pass", 5s);
  host.last().reply("started");
  REQUIRE(host.fire(5s));
  CHECK(host.last().signals.size() == 1);
  host.last().reply("error", R"(,"name":"KeyboardInterrupt")");
  host.last().reply("done");
  CHECK(outcome->kind == Kind::kInterrupted);
  CHECK(outcome->timed_out);
}

TEST_CASE_FIXTURE(Fixture, "code that does not end is stuck, until it ends or is restarted") {
  open();
  run("x", 5s);
  host.last().reply("started");
  REQUIRE(host.fire(5s));
  REQUIRE(host.fire(2s));
  CHECK(outcome->kind == Kind::kStuck);
  CHECK(outcome->timed_out);
  CHECK(outcome->reason.contains("restart"));
  CHECK(session->state() == State::kStuck);
  CHECK_FALSE(session->run("1", 0ms, {}));

  SUBCASE("it ends") {
    host.last().reply("done");
    CHECK(session->state() == State::kIdle);
  }
  SUBCASE("it is restarted") {
    auto& old = host.last();
    REQUIRE(session->restart(ready()));
    CHECK(old.killed);
    CHECK(old.let_go);
    CHECK(host.processes.size() == 2);
    old.reply("done");  // nobody listens
    CHECK(session->state() == State::kStarting);
    host.last().ready();
    CHECK(log.back() == "ready 9");
    run();
  }
}

TEST_CASE_FIXTURE(Fixture, "restart ends the run that is under way") {
  open();
  run();
  REQUIRE(session->restart(ready()));
  CHECK(outcome->kind == Kind::kEnded);
  CHECK(outcome->reason.contains("restarted"));
  CHECK(session->state() == State::kStarting);
}

TEST_CASE_FIXTURE(Fixture, "the end of the process ends the run and is told") {
  open();
  run();
  const auto ended = host.last().events.ended;
  ended({.kind = SessionEnd::Kind::kSignalled, .value = 9});
  CHECK(log == Log{"done", "ended"});
  CHECK(outcome->kind == Kind::kEnded);
  CHECK(outcome->reason == "signal 9 ended the session's process");
  CHECK_FALSE(session->run("1", 0ms, {}));
  CHECK(session->restart(ready()));
}

TEST_CASE_FIXTURE(Fixture, "close lets the interpreter end, and kills what does not") {
  open();
  bool closed = false;
  session->close([&] { closed = true; });
  CHECK(host.last().channel_ended);
  CHECK_FALSE(closed);
  SUBCASE("it ends") {
    const auto ended = host.last().events.ended;
    ended({.kind = SessionEnd::Kind::kExited});
  }
  SUBCASE("it does not") {
    REQUIRE(host.fire(2s));
    CHECK(host.last().killed);
  }
  CHECK(closed);
  CHECK(session->state() == State::kEnded);
  CHECK(log.empty());
  CHECK(host.timers.empty());
}

TEST_CASE_FIXTURE(Fixture, "destroying the session, also in a callback, lets its process go on") {
  open();
  auto wanted = callbacks();
  wanted.result = [this](const auto&) { session.reset(); };
  REQUIRE(session->run("1", 5s, std::move(wanted)));
  auto& process = host.last();
  process.say(framed(fmt::format(R"({{"op":"result","id":{},"data":{{}}}})", process.id())) +
              framed(fmt::format(R"({{"op":"done","id":{}}})", process.id())));
  CHECK_FALSE(session);
  CHECK(process.let_go);
  CHECK_FALSE(process.killed);
  CHECK(log.empty());
  CHECK(host.timers.empty());
}

TEST_CASE_FIXTURE(Fixture, "attach takes over a session in the middle of its stream") {
  auto attached = Interpreter::attach(host, spec(), 17, ready());
  REQUIRE(attached);
  session = *std::move(attached);
  CHECK(host.attached_to == 17);
  auto& process = host.last();
  process.say("nd of a message\"}");
  process.message(R"({"op":"done","id":1})");
  session->interrupt();
  CHECK(process.signals == std::vector<std::pair<int, bool>>{{SIGINT, false}});
  process.ready();
  CHECK(log == Log{"ready 9"});
  CHECK(host.timers.empty());
  run();
  process.answer_signals();
  process.reply("done");
  CHECK(outcome->kind == Kind::kDone);
}
