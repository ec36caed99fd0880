// SPDX-License-Identifier: Apache-2.0
// The end of all processes when the host asks for it, with a grace and without.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

/// Ignores the signal. What is ignored stays ignored in the program that takes the shell's place.
const char* const kStubborn = "trap '' TERM; echo ready; exec sleep 1000";

/// Waits until a process has said so. Returns its pid.
pid_t wait_ready(Connection& connection) {
  const pid_t pid = static_cast<pid_t>(connection.started().pid);
  REQUIRE(connection.receive_until("ready\n"));
  return pid;
}

}  // namespace

TEST_CASE("shutdown_with_grace_signals_every_group_and_waits_for_them") {
  Agent agent;
  std::string file = "/tmp/msb-grace-test-" + std::to_string(getpid());
  Start start = shell("trap 'sleep 0.3; echo saved > " + file +
                      "; exit 0' TERM; echo ready; while :; do sleep 0.05; done");
  Connection connection = agent.start(start);
  wait_ready(connection);
  agent.shut_down(SIGTERM, 60000);
  Outcome late;
  while (!late.refused) {
    // Until the agent has read it, processes can be started.
    late = agent.run(shell("true"));
    if (!late.refused && !late.exited) break;
  }
  REQUIRE(late.refused);
  CHECK(late.refused->stage == MSB_STAGE_REQUEST);
  CHECK(late.refused->code == ESHUTDOWN);
  Outcome outcome = connection.finish();
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 0);
  CHECK(agent.wait() == MSB_BYE_REQUESTED);
  std::string text;
  std::ifstream(file) >> text;
  CHECK(text == "saved");
  std::filesystem::remove(file);
}

TEST_CASE("shutdown_with_grace_waits_for_a_slow_reader") {
  Agent agent;
  constexpr size_t kSize = 4'000'000;  // more than sockets hold
  Start start = shell(
      "trap 'head -c 4000000 /dev/zero; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
  start.flags = MSB_START_KEEP;
  start.keep = 2 * kSize;  // so that it can end before anybody reads
  Connection connection = agent.start(start);
  const pid_t pid = wait_ready(connection);
  agent.shut_down(SIGTERM, 60000);
  REQUIRE(dies(pid));
  Outcome outcome = connection.finish();
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 7);
  CHECK(outcome.output.size() == kSize);
  CHECK(agent.wait() == MSB_BYE_REQUESTED);
}

TEST_CASE("shutdown_does_not_wait_for_a_reader_beyond_its_grace") {
  Agent agent;
  Connection connection = agent.start(shell("echo ready; exec cat /dev/zero"));
  wait_ready(connection);
  agent.shut_down(SIGTERM, 300);
  CHECK(agent.wait() == MSB_BYE_REQUESTED);
}

TEST_CASE("shutdown_kills_what_does_not_end_within_its_grace") {
  Agent agent;
  Connection connection = agent.start(shell(kStubborn));
  const pid_t pid = wait_ready(connection);
  agent.shut_down(SIGTERM, 300);
  CHECK(agent.wait() == MSB_BYE_REQUESTED);
  CHECK(connection.is_closed_by_agent());
  CHECK(kill(pid, 0) != 0);
}

TEST_CASE("shutdown_with_grace_and_nothing_running_is_at_once") {
  Agent agent;
  agent.shut_down(SIGTERM, 600000);
  CHECK(agent.wait() == MSB_BYE_REQUESTED);
}

TEST_CASE("shutdown_without_grace_ends_one_that_has_it") {
  Agent agent;
  Connection connection = agent.start(shell(kStubborn));
  wait_ready(connection);
  agent.shut_down(SIGTERM, 600000);
  agent.shut_down();
  CHECK(agent.wait() == MSB_BYE_REQUESTED);
}
