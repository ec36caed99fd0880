// SPDX-License-Identifier: Apache-2.0
// Interpreter sessions from the host's library through the guest's agent to a real interpreter.
#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/loop.hpp"
#include "protocol/interpreters/client_session_host.hpp"
#include "protocol/interpreters/interpreter.hpp"
#include "protocol/interpreters/session_list.hpp"
#include "protocol/msb_exec.h"
#include "protocol/requests.hpp"
#include "tests/exec/agent_opener.hpp"

namespace msb::test {
namespace {

using namespace std::chrono_literals;
using protocol::Interpreter;
using protocol::ListedSession;

// One loop, one agent, and a limit on how long anything may take.
struct World {
  Agent agent;
  AgentOpener connections{agent};
  std::unique_ptr<Loop> loop = std::move(*Loop::create());
  protocol::ClientSessionHost host{*loop, connections.opener()};

  ~World() { loop->drain(); }

  // Runs the loop until stop() is called. Fails the test when that takes too long.
  void run() {
    bool late = false;
    const auto limit = host.after(60s, [&] {
      late = true;
      loop->stop();
    });
    REQUIRE(loop->run());
    REQUIRE_FALSE(late);
  }

  std::unique_ptr<Interpreter> open(const std::string& name) {
    std::optional<Result<std::string>> version;
    auto session = Interpreter::open(host,
                                     {.language = protocol::Language::kPython,
                                      .name = name,
                                      .variables = {"PATH=/usr/bin:/bin"}},
                                     [&](Result<std::string> ready) {
                                       version = std::move(ready);
                                       loop->stop();
                                     });
    REQUIRE(session);
    run();
    REQUIRE(version);
    REQUIRE_MESSAGE(*version, version->error().message);
    return std::move(*session);
  }

  struct Ran {
    std::string output;
    std::string text;  // of the last expression
    std::string error;
    protocol::RunOutcome outcome;
  };

  Ran code(Interpreter& session, std::string_view text, std::chrono::milliseconds timeout = 30s) {
    Ran ran;
    const auto started =
        session.run(text, timeout,
                    {.output = [&](std::string_view bytes) { ran.output += bytes; },
                     .result =
                         [&](const protocol::Representations& value) {
                           ran.text = value.data.find("text/plain")->second;
                         },
                     .error = [&](const protocol::RunError& error) { ran.error = error.name; },
                     .done =
                         [&](const protocol::RunOutcome& outcome) {
                           ran.outcome = outcome;
                           loop->stop();
                         }});
    REQUIRE(started);
    run();
    return ran;
  }

  std::vector<ListedSession> sessions() {
    std::vector<ListedSession> listed;
    protocol::Requests requests(*loop, *connections.opener()());
    protocol::list_sessions(requests, [&](protocol::Answer<std::vector<ListedSession>> answer) {
      REQUIRE(answer);
      listed = *std::move(answer);
      loop->stop();
    });
    run();
    return listed;
  }

  void close(Interpreter& session) {
    session.close([&] { loop->stop(); });
    run();
  }
};

TEST_CASE("a session keeps its state, gives values and output, and reports errors") {
  World world;
  const auto session = world.open("main");
  CHECK(world.code(*session, "x = 20\nprint('hello')").output == "hello\n");
  CHECK(world.code(*session, "x * 2 + 2").text == "42");
  CHECK(world.code(*session, "1 / 0").error == "ZeroDivisionError");
  CHECK(world.code(*session, "x").text == "20");
  world.close(*session);
}

TEST_CASE("output of a run comes whole before the run is done") {
  World world;
  const auto session = world.open("output");
  const World::Ran ran = world.code(*session, "print('x' * 3_000_000, end='')\n'after'");
  CHECK(ran.output == std::string(3'000'000, 'x'));
  CHECK(ran.text == "'after'");
  world.close(*session);
}

TEST_CASE("a run that takes too long is interrupted and the session keeps its state") {
  World world;
  const auto session = world.open("slow");
  world.code(*session, "kept = 7");
  const World::Ran ran = world.code(*session, "while True: pass", 300ms);
  CHECK(ran.outcome.kind == protocol::RunOutcome::Kind::kInterrupted);
  CHECK(ran.outcome.timed_out);
  CHECK(world.code(*session, "kept").text == "7");
  world.close(*session);
}

TEST_CASE("a session outlives its host process's connection and is found by its label") {
  World world;
  world.code(*world.open("left"), "here = 'still'");  // lets go of it
  const auto found = world.sessions();
  REQUIRE(found.size() == 1);
  CHECK(found[0].name == "left");
  std::optional<Result<std::string>> ready;
  auto session =
      Interpreter::attach(world.host, {.language = protocol::Language::kPython, .name = "left"},
                          found[0].process, [&](Result<std::string> version) {
                            ready = std::move(version);
                            world.loop->stop();
                          });
  REQUIRE(session);
  world.run();
  REQUIRE(ready);
  REQUIRE_MESSAGE(*ready, ready->error().message);
  CHECK(world.code(**session, "here").text == "'still'");
  world.close(**session);
}

TEST_CASE("sessions are listed with what they are, and other processes are not") {
  using State = ListedSession::State;
  World world;
  Start other = shell("exec sleep 1000");
  other.flags = MSB_START_KEEP;
  other.label = "session:python:pretender";
  const Connection pretender = world.agent.start(other);
  CHECK(world.sessions().empty());
  const auto first = world.open("first");
  const auto second = world.open("second");
  world.open("left");  // lets go of it
  world.open("ended");

  auto found = world.sessions();
  REQUIRE(found.size() == 4);
  // A host that has a session forgets it when it ends; this one has none.
  CHECK(world.agent.send_signal(found[3].process, SIGKILL).type == MSB_DONE);
  const auto settled = [&] {
    return found[2].state != State::kInUse && found[3].state == State::kEnded;
  };
  for (int i = 0; i < kPatienceSeconds * 100 && !settled(); ++i) {
    std::this_thread::sleep_for(10ms);
    found = world.sessions();
    REQUIRE(found.size() == 4);
  }
  const std::pair<std::string, State> expected[] = {{"first", State::kInUse},
                                                    {"second", State::kInUse},
                                                    {"left", State::kFree},
                                                    {"ended", State::kEnded}};
  for (std::size_t i = 0; i < found.size(); ++i) {
    CHECK(found[i].language == protocol::Language::kPython);
    CHECK(found[i].name == expected[i].first);
    CHECK(found[i].state == expected[i].second);
  }
  CHECK(world.code(*second, "import os; os.getpid()").text == std::to_string(found[1].pid));
  world.close(*first);
  world.close(*second);
}

TEST_CASE("a session that is restarted has nothing of its old state, and the old process is gone") {
  World world;
  const auto session = world.open("again");
  world.code(*session, "gone = 1");
  REQUIRE(session->restart([&](const Result<std::string>& ready) {
    CHECK(ready);
    world.loop->stop();
  }));
  world.run();
  CHECK(world.code(*session, "gone").error == "NameError");
  world.close(*session);
}

}  // namespace
}  // namespace msb::test
