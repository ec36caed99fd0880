// SPDX-License-Identifier: Apache-2.0
// Processes on a pseudo-terminal.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

Start terminal(const std::string& command) {
  Start start = shell(command);
  start.flags = MSB_START_TERMINAL;
  start.rows = 24;
  start.columns = 80;
  return start;
}

}  // namespace

TEST_CASE("terminal_is_the_controlling_one_of_the_size_that_was_asked_for") {
  Agent agent;
  Outcome outcome =
      agent.run(terminal("stty size; test -t 0 && test -t 1 && test -t 2 && echo terminals; "
                         "echo controlling > /dev/tty; echo error >&2; exit 3"));
  CHECK(outcome.output == "24 80\r\nterminals\r\ncontrolling\r\nerror\r\n");
  CHECK(outcome.error.empty());
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 3);
  CHECK(outcome.exited->offsets[0] == outcome.output.size());
}

TEST_CASE("terminal_that_is_resized_tells_its_program") {
  Agent agent;
  Connection connection = agent.start(
      terminal("trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done"));
  uint32_t process = connection.started().process;
  REQUIRE(connection.receive_until("ready"));
  msb_resize resize{.process = process, .rows = 50, .columns = 132};
  CHECK(agent.request(MSB_RESIZE, bytes_of(resize)).back().type == MSB_DONE);
  Outcome outcome = connection.finish();
  CHECK(outcome.output.ends_with("50 132\r\n"));
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 5);
  Frame answer = agent.request(MSB_RESIZE, bytes_of(resize)).back();
  CHECK(answer.as<msb_failure>().stage == MSB_STAGE_PROCESS);
}

TEST_CASE("resize_without_a_terminal_is_refused") {
  Agent agent;
  Connection connection = agent.start(shell("cat"));
  msb_resize resize{.process = connection.started().process, .rows = 5, .columns = 5};
  Frame answer = agent.request(MSB_RESIZE, bytes_of(resize)).back();
  CHECK(answer.type == MSB_REFUSED);
  CHECK(answer.as<msb_failure>().stage == MSB_STAGE_REQUEST);
}

TEST_CASE("terminal_turns_an_interrupt_character_into_a_signal") {
  Agent agent;
  Connection connection = agent.start(terminal("echo ready; exec sleep 1000"));
  connection.started();
  REQUIRE(connection.receive_until("ready"));
  connection.send_input("\x03");
  Outcome outcome = connection.finish();
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->kind == MSB_EXIT_SIGNAL);
  CHECK(outcome.exited->value == SIGINT);
}

TEST_CASE("terminal_echoes_and_gives_lines_until_the_end_is_typed") {
  Agent agent;
  Connection connection = agent.start(terminal("cat; echo over"));
  connection.started();
  connection.send_input("hello\n");
  REQUIRE(connection.receive_until("hello\r\nhello\r\n"));
  connection.end_input();
  Outcome outcome = connection.finish();
  CHECK(outcome.output == "over\r\n");
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 0);
}

TEST_CASE("terminal_output_of_a_process_that_ended_is_complete") {
  Agent agent;
  std::string expected;
  for (int i = 0; i < 20000; i++) expected += std::to_string(i) + "\r\n";
  for (bool slow : {false, true}) {
    Connection connection =
        agent.start(terminal("exec awk 'BEGIN { for (i = 0; i < 20000; i++) print i }'"));
    if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    Outcome outcome = connection.finish();
    CHECK(outcome.output.size() == expected.size());
    CHECK(outcome.output == expected);
    REQUIRE(outcome.exited);
    CHECK(outcome.exited->offsets[0] == expected.size());
  }
}

TEST_CASE("terminal_output_just_before_the_end_is_never_lost") {
  Agent agent;
  for (int round = 0; round < 50; round++) {
    Outcome outcome = agent.run(terminal("printf '%05000d' 7"));
    REQUIRE(outcome.output.size() == 5000);
  }
}

TEST_CASE("terminal_exit_is_told_although_a_program_left_behind_writes_on") {
  Agent agent;
  Outcome outcome = agent.run(terminal("trap '' HUP; (trap '' HUP; exec yes) & sleep 0.2; exit 4"));
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 4);
}

TEST_CASE("terminal_that_is_closed_and_opened_again_goes_on") {
  Agent agent;
  Outcome outcome =
      agent.run(terminal("exec 0<&- 1>&- 2>&-; sleep 0.2; echo again > /dev/tty; exit 2"));
  CHECK(outcome.output == "again\r\n");
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 2);
}

TEST_CASE("terminal_takes_more_than_it_holds_once_its_program_reads") {
  Agent agent;
  Connection connection =
      agent.start(terminal("stty raw -echo; echo ready; sleep 0.3; head -c 500000 | wc -c"));
  connection.started();
  REQUIRE(connection.receive_until("ready"));
  std::thread writer([&] { connection.send_input(std::string(500000, 'x')); });
  Outcome outcome = connection.finish();
  writer.join();
  CHECK(outcome.output.find("500000") != std::string::npos);
}

TEST_CASE("terminal_and_its_process_survive_their_connection") {
  Agent agent;
  Start start = terminal("echo first; cat");
  start.flags |= MSB_START_KEEP;
  uint32_t process;
  {
    Connection connection = agent.start(start);
    process = connection.started().process;
    REQUIRE(connection.receive_until("first\r\n"));
  }
  Connection connection = agent.attach(process, 0);
  connection.send_input("second\n");
  REQUIRE(connection.receive_until("first\r\nsecond\r\nsecond\r\n"));
  connection.end_input();
  Outcome outcome = connection.finish();
  REQUIRE(outcome.exited);
  CHECK(agent.request_about(MSB_WAIT, process).type == MSB_EXITED);
}

TEST_CASE("terminal_belongs_to_the_user") {
  if (geteuid() != 0) return;
  Agent agent;
  Start start = terminal("stat -c %u $(tty); echo open > $(tty)");
  start.user = "12345:23456";
  CHECK(agent.run(start).output == "12345\r\nopen\r\n");
}
