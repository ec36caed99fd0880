// SPDX-License-Identifier: Apache-2.0
// Standard input and output: exact to the byte, and bounded whoever is slow.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <random>
#include <thread>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

std::string random_bytes(size_t size) {
  std::mt19937 random(7);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

}  // namespace

TEST_CASE("stream_of_any_bytes_comes_back_unchanged") {
  Agent agent;
  std::string bytes = random_bytes(3 * 1024 * 1024 + 17);
  Connection connection = agent.start({.arguments = {"cat"}});
  std::thread writer([&] {
    connection.send_input(bytes);
    connection.end_input();
  });
  Outcome outcome = connection.finish();
  writer.join();
  CHECK(outcome.output.size() == bytes.size());
  CHECK(outcome.output == bytes);
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 0);
}

TEST_CASE("stream_cut_at_every_byte_is_understood") {
  Agent agent;
  Connection connection = agent.connect();
  std::string bytes = frame(MSB_START, Start{.arguments = {"cat"}}.payload()) +
                      frame(MSB_STDIN, "hello") + frame(MSB_STDIN, " world") + frame(MSB_STDIN);
  for (char byte : bytes) connection.send(std::string(1, byte));
  CHECK(connection.finish().output == "hello world");
}

TEST_CASE("stream_sent_with_the_start_in_one_piece_is_understood") {
  Agent agent;
  Connection connection = agent.connect();
  connection.send(frame(MSB_START, Start{.arguments = {"cat"}}.payload()) +
                  frame(MSB_STDIN, "hello") + frame(MSB_STDIN));
  CHECK(connection.finish().output == "hello");
}

TEST_CASE("output_of_a_process_that_ended_is_sent_whole_to_a_slow_reader") {
  Agent agent;
  Connection connection =
      agent.start(shell("head -c 1000000 /dev/zero; head -c 50000 /dev/zero >&2"));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  Outcome outcome = connection.finish();
  CHECK(outcome.output.size() == 1000000);
  CHECK(outcome.error.size() == 50000);
  REQUIRE(outcome.exited);
}

TEST_CASE("reader_that_never_reads_stalls_only_its_own_process") {
  Agent agent;
  Connection stalled = agent.start(shell("yes"));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(agent.run(shell("echo fine")).output == "fine\n");
  // It was held back, not lost.
  auto started = stalled.receive();
  REQUIRE(started);
  size_t received = 0;
  while (received < 2000000) {
    auto next = stalled.receive();
    REQUIRE(next);
    REQUIRE(next->type == MSB_STDOUT);
    received += next->payload.size();
  }
}

TEST_CASE("process_that_never_reads_stops_its_own_connection_only") {
  Agent agent;
  Connection connection = agent.start({.arguments = {"sleep", "1000"}});
  std::string bytes;
  for (int i = 0; i < 200; i++) bytes += frame(MSB_STDIN, std::string(MSB_MAX_DATA, 'x'));
  CHECK(connection.send_until_stuck(bytes) < 2 * 1024 * 1024);
  CHECK(agent.run(shell("echo fine")).output == "fine\n");
  // The signal still comes through, and so does the end.
  auto started = connection.receive();
  REQUIRE(started);
  agent.send_signal(started->as<msb_started>().process, SIGKILL);
  auto exited = connection.receive();
  REQUIRE(exited);
  CHECK(exited->as<msb_exited>().kind == MSB_EXIT_SIGNAL);
  CHECK(exited->as<msb_exited>().value == SIGKILL);
}

TEST_CASE("input_for_a_process_that_closed_it_is_dropped") {
  Agent agent;
  Connection connection = agent.start(shell("exec <&-; echo closed; sleep 0.3; exit 5"));
  REQUIRE(connection.receive()->type == MSB_STARTED);
  REQUIRE(connection.receive()->payload == "closed\n");
  for (int i = 0; i < 20; i++) connection.send_input(std::string(MSB_MAX_DATA, 'x'));
  connection.end_input();
  Outcome outcome = connection.finish();
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 5);
}

TEST_CASE("input_that_is_blocked_when_the_process_closes_it_is_dropped") {
  Agent agent;
  Connection connection = agent.start(shell("sleep 0.3; exec <&-; echo closed; sleep 0.2; exit 5"));
  std::thread writer([&] {
    for (int i = 0; i < 20; i++) connection.send_input(std::string(MSB_MAX_DATA, 'x'));
    connection.end_input();
  });
  Outcome outcome = connection.finish();
  writer.join();
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 5);
}

TEST_CASE("exit_is_told_although_a_program_left_behind_holds_the_output") {
  Agent agent;
  static_assert(kPatienceSeconds < 25);
  Outcome outcome = agent.run(shell("sleep 25 & echo done"));
  CHECK(outcome.output == "done\n");
  REQUIRE(outcome.exited);
}

TEST_CASE("exit_is_told_although_a_program_left_behind_writes_on") {
  Agent agent;
  Outcome outcome = agent.run(shell("yes & sleep 0.2; echo done >&2"));
  CHECK(outcome.error == "done\n");
  REQUIRE(outcome.exited);
}

TEST_CASE("process_that_closes_its_output_goes_on") {
  Agent agent;
  Outcome outcome =
      agent.run(shell("exec >&-; sleep 0.2; echo late >&2; exec 2>&-; sleep 0.1; exit 4"));
  CHECK(outcome.error == "late\n");
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 4);
}

TEST_CASE("host_that_vanishes_takes_the_process_group_with_it") {
  Agent agent;
  Connection connection = agent.start(shell("sleep 1000 & echo $!; wait"));
  pid_t leader = static_cast<pid_t>(connection.receive()->as<msb_started>().pid);
  pid_t member = std::stoi(connection.receive()->payload);
  REQUIRE(kill(leader, 0) == 0);
  REQUIRE(kill(member, 0) == 0);
  connection.close();
  CHECK(dies(leader));
  CHECK(dies(member));
}

TEST_CASE("host_that_vanishes_while_nothing_moves_is_noticed") {
  Agent agent;
  SUBCASE("the process does not read") {
    Connection connection = agent.start({.arguments = {"sleep", "1000"}});
    pid_t pid = static_cast<pid_t>(connection.receive()->as<msb_started>().pid);
    connection.send_until_stuck(frame(MSB_STDIN, std::string(MSB_MAX_DATA, 'x')) +
                                frame(MSB_STDIN, std::string(MSB_MAX_DATA, 'x')) +
                                frame(MSB_STDIN, std::string(MSB_MAX_DATA, 'x')));
    connection.close();
    CHECK(dies(pid));
  }
  SUBCASE("the host does not read") {
    Connection connection = agent.start(shell("yes"));
    pid_t pid = static_cast<pid_t>(connection.receive()->as<msb_started>().pid);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    connection.close();
    CHECK(dies(pid));
  }
}
