// SPDX-License-Identifier: Apache-2.0
// Connections of requests, and those that are given away.
#include <doctest/doctest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

std::string ping(const std::string& text) {
  return frame(MSB_PING, text);
}

std::string about(uint32_t type, uint32_t process) {
  return frame(type, bytes_of(msb_process_id{.process = process}));
}

}  // namespace

TEST_CASE("requests_of_one_connection_are_answered_in_order") {
  Agent agent;
  Connection connection = agent.connect();
  std::string bytes;
  for (int i = 0; i < 1000; i++) {
    bytes += ping(std::to_string(i)) + frame(MSB_LIST) + about(MSB_FORGET, 1);
  }
  connection.send(bytes);
  for (int i = 0; i < 1000; i++) {
    auto pong = connection.receive();
    REQUIRE(pong);
    REQUIRE(pong->type == MSB_PONG);
    REQUIRE(pong->payload == std::to_string(i));
    REQUIRE(connection.receive()->type == MSB_DONE);
    REQUIRE(connection.receive()->type == MSB_REFUSED);
  }
}

TEST_CASE("requests_cut_at_every_byte_are_understood") {
  Agent agent;
  Connection connection = agent.connect();
  for (char byte : ping("hello") + frame(MSB_LIST) + ping("")) {
    connection.send(std::string(1, byte));
  }
  CHECK(connection.receive()->payload == "hello");
  CHECK(connection.receive()->type == MSB_DONE);
  CHECK(connection.receive()->type == MSB_PONG);
}

TEST_CASE("requests_are_not_read_while_their_answers_are_not") {
  Agent agent;
  Connection connection = agent.connect();
  std::string bytes;
  for (int i = 0; i < 8000; i++) bytes += ping(std::string(1024, 'x'));
  size_t sent = connection.send_until_stuck(bytes);
  CHECK(sent < 3 * 1024 * 1024);
  CHECK(agent.request(MSB_PING, "other").back().payload == "other");
  // They go on where they stopped.
  size_t whole = sent / (8 + 1024);
  for (size_t i = 0; i < whole; i++) REQUIRE(connection.receive()->payload.size() == 1024);
}

TEST_CASE("request_connection_that_breaks_the_protocol_is_closed") {
  Agent agent;
  for (const std::string& bytes :
       {frame(MSB_START, shell("true").payload()), frame(MSB_STDIN, "x"), frame(MSB_FILES),
        frame(MSB_ATTACH, std::string(32, '\0')), frame(MSB_CONNECT, std::string(8, '\0')),
        frame(MSB_SHUTDOWN, std::string(8, '\0')), frame(MSB_PONG), frame(7),
        frame(MSB_SIGNAL, std::string(11, '\0')), frame(MSB_PING, std::string(1025, 'x'))}) {
    Connection connection = agent.connect();
    connection.send(ping("first"));
    CHECK(connection.receive()->payload == "first");
    connection.send(bytes);
    CHECK(connection.is_closed_by_agent());
  }
}

TEST_CASE("request_after_one_that_was_refused_is_answered") {
  Agent agent;
  Connection connection = agent.connect();
  connection.send(about(MSB_WAIT, 5) + ping("next"));
  auto refused = connection.receive();
  REQUIRE(refused);
  CHECK(refused->type == MSB_REFUSED);
  CHECK(refused->as<msb_failure>().code == ESRCH);
  CHECK(connection.receive()->payload == "next");
}

TEST_CASE("file_service_runs_beside_the_agent_and_is_given_the_connection") {
  Agent agent;
  Connection connection = agent.connect();
  connection.send(frame(MSB_FILES));
  auto done = connection.receive();
  REQUIRE(done);
  CHECK(done->type == MSB_DONE);
  CHECK(agent.request(MSB_PING, "x").back().payload == "x");
}

TEST_CASE("file_service_gets_what_came_together_with_the_first_frame") {
  Agent agent;
  msb_file_request fields{};
  fields.user = fields.group = UINT32_MAX;
  const std::string request = frame(MSB_FILE_STAT, bytes_of(fields) + "/" + '\0');
  for (size_t cut = 1; cut < request.size(); cut += 7) {
    Connection connection = agent.connect();
    connection.send(frame(MSB_FILES) + request.substr(0, cut));
    REQUIRE(connection.receive()->type == MSB_DONE);
    connection.send(request.substr(cut));
    auto entry = connection.receive();
    REQUIRE(entry);
    CHECK(entry->type == MSB_FILE_ENTRY);
  }
}

TEST_CASE("file_service_is_out_of_sight_of_programs_and_they_stay_in_their_namespace") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kOwn);
  std::vector<Connection> services;
  for (int i = 0; i < 3; i++) {
    services.push_back(agent.connect());
    services.back().send(frame(MSB_FILES));
    REQUIRE(services.back().receive()->type == MSB_DONE);
    // The init and the shell.
    CHECK(agent.run(shell("set -- /proc/[0-9]*; echo $#")).output == "2\n");
  }
}

TEST_CASE("file_services_die_with_the_agent") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kOwn);
  Connection connection = agent.connect();
  connection.send(frame(MSB_FILES));
  REQUIRE(connection.receive()->type == MSB_DONE);
  agent.shut_down();
  CHECK(agent.wait() == MSB_BYE_REQUESTED);
  CHECK(connection.is_closed_by_agent());
}

TEST_CASE("agent_survives_hosts_that_vanish_at_every_point_of_every_kind_of_connection") {
  Agent agent;
  Start kept = shell("cat");
  kept.flags = MSB_START_KEEP | MSB_START_CHANNEL;
  uint32_t process = agent.start(kept).started().process;
  Start terminal = shell("cat");
  terminal.flags = MSB_START_TERMINAL;
  msb_attach attach{.process = process, .reserved = 0, .offsets = {}};
  const std::vector<std::string> conversations = {
      frame(MSB_START, terminal.payload()) + frame(MSB_STDIN, "hello\n") + frame(MSB_STDIN),
      frame(MSB_ATTACH, bytes_of(attach)) + frame(MSB_STDIN, "hello") +
          frame(MSB_CHANNEL_INPUT, "hello"),
      ping("hello") + frame(MSB_LIST) + about(MSB_WAIT, process) + ping("behind"),
      frame(MSB_FILES)};
  for (const std::string& bytes : conversations) {
    for (size_t cut = 0; cut <= bytes.size(); cut += 3) {
      Connection connection = agent.connect();
      connection.send(bytes.substr(0, cut));
      if (cut % 2 == 0) {
        pollfd wait{.fd = connection.descriptor(), .events = POLLIN, .revents = 0};
        poll(&wait, 1, 5);
      }
    }
  }
  CHECK(agent.send_signal(process, SIGKILL).type == MSB_DONE);
  CHECK(agent.request_about(MSB_WAIT, process).type == MSB_EXITED);
}

TEST_CASE("agent_survives_random_frames_on_every_kind_of_connection") {
  Agent agent;
  std::mt19937 random(77);
  Start kept = shell("cat & cat <&3");
  kept.flags = MSB_START_KEEP | MSB_START_CHANNEL;
  uint32_t process = agent.start(kept).started().process;
  msb_attach attach{.process = process, .reserved = 0, .offsets = {}};
  const std::vector<std::string> pieces = {
      frame(MSB_START, kept.payload()),
      frame(MSB_ATTACH, bytes_of(attach)),
      frame(MSB_STDIN, "hello"),
      frame(MSB_STDIN),
      frame(MSB_CHANNEL_INPUT, "hello"),
      frame(MSB_CHANNEL_INPUT),
      ping("x"),
      frame(MSB_LIST),
      about(MSB_WAIT, process),
      about(MSB_FORGET, process + 1),
      frame(MSB_RESIZE, bytes_of(msb_resize{.process = process, .rows = 1, .columns = 1})),
      frame(MSB_FILES)};
  for (int round = 0; round < 500; round++) {
    std::string bytes;
    for (auto count = random() % 6 + 1; count > 0; count--) {
      bytes += pieces[random() % pieces.size()];
    }
    if (random() % 3 == 0) bytes[random() % bytes.size()] = static_cast<char>(random());
    Connection connection = agent.connect();
    connection.send(bytes);
  }
  // Those it started outlived their connections.
  for (const msb_process& each : agent.list()) {
    if (each.state == MSB_PROCESS_RUNS) agent.send_signal(each.process, SIGKILL, MSB_SIGNAL_GROUP);
  }
  CHECK(agent.run(shell("echo fine")).output == "fine\n");
}
