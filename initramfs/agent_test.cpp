// SPDX-License-Identifier: Apache-2.0
// The agent as a whole: many processes, hosts that misbehave, and its end.
#include <doctest/doctest.h>
#include <signal.h>

#include <random>
#include <vector>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

std::string header(uint32_t type, uint32_t length) {
  std::string bytes = frame(type);
  for (int i = 0; i < 4; i++)
    bytes[static_cast<size_t>(4 + i)] = static_cast<char>(length >> (8 * i));
  return bytes;
}

std::string start_frame(const std::string& command) {
  return frame(MSB_START, shell(command).payload());
}

}  // namespace

TEST_CASE("agent_runs_hundreds_of_processes_at_once") {
  Agent agent;
  std::vector<Connection> connections;
  for (int i = 0; i < 300; i++)
    connections.push_back(agent.start(shell("read x; echo $x; exit 9")));
  for (size_t i = 0; i < connections.size(); i++) {
    connections[i].send_input(std::to_string(i) + "\n");
  }
  for (size_t i = 0; i < connections.size(); i++) {
    Outcome outcome = connections[i].finish();
    CHECK(outcome.output == std::to_string(i) + "\n");
    REQUIRE(outcome.exited);
    CHECK(outcome.exited->value == 9);
  }
}

TEST_CASE("agent_closes_a_process_connection_that_breaks_the_protocol_and_stays_well") {
  Agent agent;
  const std::vector<std::string> before_start = {frame(0),
                                                 frame(UINT32_MAX),
                                                 frame(MSB_STDIN, "x"),
                                                 frame(MSB_STDIN),
                                                 frame(MSB_CHANNEL_INPUT, "x"),
                                                 frame(MSB_SHUTDOWN, std::string(8, '\0')),
                                                 frame(MSB_SIGNAL, std::string(8, '\0')),
                                                 frame(MSB_ATTACH, std::string(31, '\0')),
                                                 frame(MSB_FILES, "x"),
                                                 frame(MSB_FILE_STAT, std::string(40, '\0')),
                                                 frame(MSB_LIST, "x"),
                                                 frame(MSB_STARTED),
                                                 header(MSB_START, MSB_MAX_START + 1),
                                                 header(MSB_START, UINT32_MAX)};
  for (const std::string& bytes : before_start) {
    Connection connection = agent.connect();
    connection.send(bytes);
    CHECK(connection.is_closed_by_agent());
  }
  const std::vector<std::string> after_start = {start_frame("sleep 1000"),
                                                frame(MSB_SHUTDOWN, std::string(8, '\0')),
                                                frame(MSB_SIGNAL, std::string(12, '\0')),
                                                frame(MSB_LIST),
                                                frame(MSB_FILES),
                                                frame(MSB_ATTACH, std::string(32, '\0')),
                                                frame(MSB_CHANNEL_INPUT, "x"),
                                                header(MSB_STDIN, MSB_MAX_DATA + 1),
                                                header(MSB_STDIN, UINT32_MAX),
                                                frame(MSB_STDOUT, "x"),
                                                frame(77),
                                                frame(MSB_STDIN) + frame(MSB_STDIN, "x"),
                                                frame(MSB_STDIN) + frame(MSB_STDIN)};
  for (const std::string& bytes : after_start) {
    Connection connection = agent.connect();
    connection.send(start_frame("sleep 1000"));
    auto started = connection.receive();
    REQUIRE(started);
    pid_t pid = static_cast<pid_t>(started->as<msb_started>().pid);
    connection.send(bytes);
    CHECK(connection.is_closed_by_agent());
    CHECK(dies(pid));
  }
  CHECK(agent.run(shell("echo fine")).output == "fine\n");
}

TEST_CASE("agent_refuses_a_malformed_start") {
  Agent agent;
  for (const std::string& payload : {std::string(), std::string(24, '\0'), std::string("short")}) {
    Connection connection = agent.connect();
    connection.send(frame(MSB_START, payload));
    Outcome outcome = connection.finish();
    REQUIRE(outcome.refused);
    CHECK(outcome.refused->stage == MSB_STAGE_REQUEST);
    CHECK(outcome.closed);
  }
}

TEST_CASE("agent_survives_hosts_that_vanish_at_every_point") {
  Agent agent;
  std::string bytes = start_frame("cat") + frame(MSB_STDIN, "hello") + frame(MSB_STDIN);
  for (size_t cut = 0; cut <= bytes.size(); cut += 3) {
    Connection connection = agent.connect();
    connection.send(bytes.substr(0, cut));
  }
  CHECK(agent.run(shell("echo fine")).output == "fine\n");
}

TEST_CASE("agent_survives_random_bytes") {
  Agent agent;
  std::mt19937 random(3);
  std::string whole = start_frame("cat") + frame(MSB_STDIN, "hello") + frame(MSB_STDIN);
  for (int round = 0; round < 300; round++) {
    std::string bytes = whole;
    for (auto changes = random() % 3 + 1; changes > 0; changes--) {
      bytes[random() % bytes.size()] =
          static_cast<char>(random() % 3 == 0 ? random() : random() % 40);
    }
    Connection connection = agent.connect();
    connection.send(bytes);
  }
  CHECK(agent.run(shell("echo fine")).output == "fine\n");
}

TEST_CASE("agent_asked_to_shut_down_ends_its_processes") {
  Agent agent;
  Connection connection = agent.start(shell("sleep 1000"));
  pid_t pid = static_cast<pid_t>(connection.receive()->as<msb_started>().pid);
  agent.shut_down();
  CHECK(agent.wait() == MSB_BYE_REQUESTED);
  CHECK(connection.is_closed_by_agent());
  CHECK(kill(pid, 0) != 0);
}

TEST_CASE("agent_whose_control_connection_breaks_the_protocol_fails") {
  const std::vector<std::string> broken = {
      frame(0),
      frame(MSB_START),
      frame(MSB_SIGNAL, std::string(12, '\0')),
      header(MSB_SHUTDOWN, UINT32_MAX),
      frame(MSB_SHUTDOWN, "x"),
      frame(MSB_SHUTDOWN),
      frame(MSB_SHUTDOWN, bytes_of(msb_shutdown{.signal = 65, .grace_ms = 1})),
      frame(MSB_SHUTDOWN, bytes_of(msb_shutdown{.signal = 0, .grace_ms = 600001}))};
  for (const std::string& bytes : broken) {
    Agent agent;
    agent.control().send(bytes);
    CHECK(agent.wait() == MSB_BYE_FAILED);
  }
}

TEST_CASE("agent_takes_control_frames_cut_at_every_byte") {
  Agent agent;
  std::string bytes =
      frame(MSB_SHUTDOWN, bytes_of(msb_shutdown{.signal = SIGTERM, .grace_ms = 60000}));
  Connection connection = agent.start({.arguments = {"sleep", "1000"}});
  connection.started();
  for (char byte : bytes) agent.control().send(std::string(1, byte));
  Outcome outcome = connection.finish();
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == SIGTERM);
  CHECK(agent.wait() == MSB_BYE_REQUESTED);
}
