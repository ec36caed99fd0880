// SPDX-License-Identifier: Apache-2.0
// The channel: descriptor 3 of a process, in order with its output.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <thread>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

Start with_channel(Start start) {
  start.flags |= MSB_START_CHANNEL;
  return start;
}

Start python(const std::string& program) {
  return with_channel({.arguments = {"python3", "-c", program}});
}

/// Receives to the end and checks that at each number in the channel, as many lines of output and
/// error had come as the number says.
void check_order(Connection& connection, bool slow) {
  std::string lines[2];
  std::string channel;
  int messages = 0;
  bool exited = false;
  while (auto next = connection.receive()) {
    if (next->type == MSB_STDOUT) lines[0] += next->payload;
    if (next->type == MSB_STDERR) lines[1] += next->payload;
    if (next->type == MSB_EXITED) exited = true;
    if (next->type != MSB_CHANNEL) continue;
    if (slow && messages % 50 == 0) usleep(20000);
    channel += next->payload;
    while (channel.size() >= 8) {
      size_t expected = std::stoul(channel.substr(0, 8));
      channel.erase(0, 8);
      messages++;
      REQUIRE(lines[0].size() >= expected);
      REQUIRE(lines[1].size() >= expected / 2);
    }
  }
  CHECK(exited);
  CHECK(messages == 400);
}

const char* const kOrdered =
    "import os, random\n"
    "random.seed(4)\n"
    "written = 0\n"
    "for i in range(400):\n"
    "  n = random.choice([2, 100, 5000, 70000])\n"
    "  os.write(2, b'e' * (n // 2))\n"
    "  data = b'o' * n\n"
    "  while data: data = data[os.write(1, data):]\n"
    "  written += n\n"
    "  os.write(3, b'%08d' % written)\n";

}  // namespace

TEST_CASE("channel_carries_bytes_both_ways_and_ends_on_its_own") {
  Agent agent;
  Connection connection = agent.start(with_channel(shell("cat <&3 >&3; echo closed")));
  connection.started();
  std::mt19937 random(9);
  std::string bytes(2000000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  std::thread writer([&] {
    connection.send_channel(bytes);
    connection.send(frame(MSB_CHANNEL_INPUT));
  });
  Outcome outcome = connection.finish();
  writer.join();
  CHECK(outcome.channel.size() == bytes.size());
  CHECK(outcome.channel == bytes);
  CHECK(outcome.output == "closed\n");
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->offsets[2] == bytes.size());
}

TEST_CASE("channel_is_descriptor_3_and_there_is_no_other") {
  Agent agent;
  // 4 is ls looking at the directory.
  CHECK(agent.run(with_channel(shell("ls /proc/self/fd"))).output == "0\n1\n2\n3\n4\n");
}

TEST_CASE("channel_bytes_come_after_what_was_written_before_them") {
  Agent agent;
  for (bool slow : {false, true}) {
    Connection connection = agent.start(python(kOrdered));
    connection.started();
    if (slow) usleep(300000);
    check_order(connection, slow);
  }
}

TEST_CASE("channel_order_holds_for_a_process_that_is_kept_too") {
  Agent agent;
  Start start = python(kOrdered);
  start.flags |= MSB_START_KEEP;
  start.keep = 64 * 1024 * 1024;
  uint32_t process = agent.start(start).started().process;
  Connection connection = agent.attach(process, 0, 0, 0);
  REQUIRE(connection.receive()->type == MSB_ATTACHED);
  check_order(connection, true);
  REQUIRE(agent.request_about(MSB_WAIT, process).type == MSB_EXITED);
  Connection again = agent.attach(process, 0, 0, 0);
  REQUIRE(again.receive()->type == MSB_ATTACHED);
  check_order(again, false);
}

TEST_CASE("channel_is_not_starved_by_endless_output") {
  Agent agent;
  Connection connection = agent.start(
      with_channel(shell("(exec yes) & (exec yes >&2) & sleep 0.2; echo here >&3; cat <&3")));
  connection.started();
  std::string channel;
  size_t others = 0;
  while (channel != "here\n" && others < 200000000) {
    auto next = connection.receive();
    REQUIRE(next);
    if (next->type == MSB_CHANNEL) {
      channel += next->payload;
    } else {
      others += next->payload.size();
    }
  }
  CHECK(channel == "here\n");
}

TEST_CASE("channel_that_the_process_closes_drops_what_comes") {
  Agent agent;
  Connection connection =
      agent.start(with_channel(shell("echo last >&3; exec 3>&-; read x; echo $x; exit 8")));
  connection.started();
  for (int i = 0; i < 20; i++) connection.send_channel(std::string(MSB_MAX_DATA, 'x'));
  connection.send(frame(MSB_CHANNEL_INPUT));
  connection.send_input("read\n");
  Outcome outcome = connection.finish();
  CHECK(outcome.channel == "last\n");
  CHECK(outcome.output == "read\n");
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 8);
}

TEST_CASE("channel_input_that_breaks_the_protocol_closes_the_connection") {
  Agent agent;
  for (const std::string& bytes :
       {frame(MSB_CHANNEL_INPUT) + frame(MSB_CHANNEL_INPUT, "x"),
        frame(MSB_CHANNEL_INPUT) + frame(MSB_CHANNEL_INPUT), frame(MSB_CHANNEL, "x")}) {
    Connection connection = agent.start(with_channel(shell("sleep 1000")));
    connection.started();
    connection.send(bytes);
    CHECK(connection.is_closed_by_agent());
  }
}

TEST_CASE("channel_works_beside_a_terminal") {
  Agent agent;
  Start start = with_channel(shell(
      "i=0; while [ $i -lt 300 ]; do i=$((i+1)); printf %0500d $i; printf %08d $i >&3; done"));
  start.flags |= MSB_START_TERMINAL;
  Connection connection = agent.start(start);
  connection.started();
  size_t output = 0;
  std::string channel;
  bool exited = false;
  while (auto next = connection.receive()) {
    if (next->type == MSB_STDOUT) output += next->payload.size();
    if (next->type == MSB_EXITED) exited = true;
    if (next->type != MSB_CHANNEL) continue;
    channel += next->payload;
    REQUIRE(output >= 500 * (channel.size() / 8));
  }
  CHECK(exited);
  CHECK(channel.size() == 300 * 8);
  CHECK(output == 300 * 500);
}

TEST_CASE("channel_left_open_by_a_program_left_behind_does_not_hold_up_the_end") {
  Agent agent;
  Outcome outcome = agent.run(with_channel(shell("(exec sleep 25) & echo done >&3; exit 1")));
  CHECK(outcome.channel == "done\n");
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 1);
}
