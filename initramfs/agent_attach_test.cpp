// SPDX-License-Identifier: Apache-2.0
// Processes that outlive their connection: nothing is lost but what was not to be kept, and that is
// said.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

Start kept(const std::string& command, uint32_t keep = 0) {
  Start start = shell(command);
  start.flags = MSB_START_KEEP;
  start.keep = keep;
  return start;
}

/// Starts it, and leaves it.
uint32_t start_and_leave(const Agent& agent, const Start& start) {
  return agent.start(start).started().process;
}

msb_exited wait_for(const Agent& agent, uint32_t process) {
  Frame answer = agent.request_about(MSB_WAIT, process);
  REQUIRE(answer.type == MSB_EXITED);
  return answer.as<msb_exited>();
}

msb_process find(const Agent& agent, uint32_t process) {
  for (const msb_process& each : agent.list()) {
    if (each.process == process) return each;
  }
  return {};
}

/// Waits until a process has written that many bytes to its standard output.
bool has_written(const Agent& agent, uint32_t process, uint64_t bytes) {
  for (int i = 0; i < kPatienceSeconds * 100; i++) {
    if (find(agent, process).offsets[0] >= bytes) return true;
    usleep(10000);
  }
  return false;
}

void check_refused(const Outcome& outcome, uint32_t stage) {
  REQUIRE(outcome.refused);
  CHECK(outcome.refused->stage == stage);
  CHECK(outcome.closed);
}

}  // namespace

TEST_CASE("kept_process_outlives_its_connection_and_tells_all_afterwards") {
  Agent agent;
  uint32_t process = start_and_leave(agent, kept("sleep 0.2; echo out; echo err >&2; exit 3"));
  msb_exited exited = wait_for(agent, process);
  CHECK(exited.value == 3);
  CHECK(exited.process == process);
  CHECK(exited.offsets[0] == 4);
  CHECK(exited.offsets[1] == 4);
  for (int round = 0; round < 2; round++) {
    Outcome outcome = agent.attach(process, 0, 0, 0).finish();
    REQUIRE(outcome.attached);
    CHECK(outcome.attached->process == process);
    CHECK(outcome.output == "out\n");
    CHECK(outcome.error == "err\n");
    REQUIRE(outcome.exited);
    CHECK(outcome.exited->value == 3);
    CHECK(outcome.closed);
  }
  Outcome outcome = agent.attach(process, 2, 4).finish();
  CHECK(outcome.output == "t\n");
  CHECK(outcome.error.empty());
  CHECK(agent.request_about(MSB_FORGET, process).type == MSB_DONE);
  check_refused(agent.attach(process, 0).finish(), MSB_STAGE_PROCESS);
}

TEST_CASE("attach_to_what_is_not_kept_is_refused") {
  Agent agent;
  Connection connection = agent.start(shell("cat"));
  uint32_t process = connection.started().process;
  for (uint32_t nobody : {process, process + 1, 0u, UINT32_MAX}) {
    check_refused(agent.attach(nobody, 0, 0, 0).finish(), MSB_STAGE_PROCESS);
  }
}

TEST_CASE("attached_tells_of_the_standard_input_and_the_terminal") {
  Agent agent;
  struct Case {
    uint32_t start;
    uint32_t attached;
  };
  for (const Case& each : {Case{0, MSB_ATTACHED_INPUT}, Case{MSB_START_NO_STDIN, 0},
                           Case{MSB_START_TERMINAL, MSB_ATTACHED_INPUT | MSB_ATTACHED_TERMINAL}}) {
    CAPTURE(each.start);
    Start start = kept("exec sleep 1000");
    start.flags |= each.start;
    uint32_t process = start_and_leave(agent, start);
    for (int round = 0; round < 2; round++) {
      Connection connection = agent.attach(process, 0);
      auto first = connection.receive();
      REQUIRE(first);
      REQUIRE(first->type == MSB_ATTACHED);
      CHECK(first->as<msb_attached>().flags == each.attached);
    }
  }
}

TEST_CASE("attach_beyond_what_was_written_is_refused_and_leaves_the_process_alone") {
  Agent agent;
  Connection connection = agent.start(kept("echo abc; cat"));
  uint32_t process = connection.started().process;
  REQUIRE(connection.receive_until("abc\n"));
  check_refused(agent.attach(process, 5).finish(), MSB_STAGE_REQUEST);
  check_refused(agent.attach(process, 0, 1).finish(), MSB_STAGE_REQUEST);
  check_refused(agent.attach(process, 0, 0, 1).finish(), MSB_STAGE_REQUEST);
  connection.send_input("still here\n");
  CHECK(connection.receive_until("still here\n"));
}

TEST_CASE("attach_takes_the_process_over_from_the_connection_that_has_it") {
  Agent agent;
  Connection first = agent.start(kept("echo one; cat"));
  uint32_t process = first.started().process;
  REQUIRE(first.receive_until("one\n"));
  Connection second = agent.attach(process, MSB_OFFSET_END);
  Outcome outcome = first.finish();
  CHECK(outcome.detached);
  CHECK(outcome.closed);
  second.send_input("two\n");
  second.end_input();
  outcome = second.finish();
  REQUIRE(outcome.attached);
  CHECK(outcome.attached->offsets[0] == 4);
  CHECK(outcome.output == "two\n");
}

TEST_CASE("connection_that_is_detached_in_the_middle_of_a_frame_gets_that_frame_whole") {
  Agent agent;
  Connection first = agent.start(kept("head -c 3000000 /dev/zero | tr '\\0' x; cat", 4000000));
  uint32_t process = first.started().process;
  // It does not read: some frame is stuck half-way.
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  Connection second = agent.attach(process, 0);
  second.end_input();
  Outcome whole = second.finish();
  CHECK(whole.output == std::string(3000000, 'x'));
  Outcome outcome = first.finish();
  CHECK(outcome.detached);
  CHECK(outcome.closed);
  CHECK(outcome.output == std::string(outcome.output.size(), 'x'));
}

TEST_CASE("process_that_nobody_reads_keeps_the_last_bytes_and_says_what_is_lost") {
  Agent agent;
  constexpr uint32_t kKeep = 10000;
  uint32_t process = start_and_leave(
      agent, kept("i=0; while [ $i -lt 5000 ]; do printf '%010d' $i; i=$((i+1)); done", kKeep));
  msb_exited exited = wait_for(agent, process);
  CHECK(exited.offsets[0] == 50000);
  CHECK(find(agent, process).oldest[0] == 50000 - kKeep);
  std::string all;
  for (int i = 0; i < 5000; i++) {
    std::string number = std::to_string(i);
    all += std::string(10 - number.size(), '0') + number;
  }
  for (uint64_t wanted : {uint64_t{0}, uint64_t{39999}, uint64_t{40000}, uint64_t{40001},
                          uint64_t{49999}, uint64_t{50000}, uint64_t{MSB_OFFSET_END}}) {
    CAPTURE(wanted);
    Outcome outcome = agent.attach(process, wanted).finish();
    REQUIRE(outcome.attached);
    uint64_t expected = wanted == MSB_OFFSET_END ? 50000 : std::max<uint64_t>(wanted, 40000);
    CHECK(outcome.attached->offsets[0] == expected);
    CHECK(outcome.output == all.substr(expected));
  }
}

TEST_CASE("process_that_is_attached_waits_rather_than_lose_a_byte") {
  Agent agent;
  constexpr size_t kTotal = 2000000;
  Connection connection =
      agent.start(kept("head -c " + std::to_string(kTotal) + " /dev/zero", 1000));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  Outcome outcome = connection.finish();
  CHECK(outcome.output.size() == kTotal);
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->offsets[0] == kTotal);
}

// The process writes numbered lines on both streams; connections come at random and die at random,
// with frames half read. What each gets must be the bytes of the offsets that it was told.
TEST_CASE("reattaching_at_random_moments_loses_nothing_that_was_to_be_kept") {
  Agent agent;
  std::mt19937 random(20);
  for (uint32_t keep : {4 * 1024 * 1024u, 30000u}) {
    CAPTURE(keep);
    constexpr int kLines = 60000;
    uint32_t process = start_and_leave(
        agent, kept("exec awk 'BEGIN { for (i = 0; i < " + std::to_string(kLines) +
                        "; i++) { printf \"%09d\\n\", i; if (i % 3 == 0) printf \"%09d\\n\", i > "
                        "\"/dev/stderr\" } }'",
                    keep));
    std::array<std::string, 2> all;
    for (int i = 0; i < kLines; i++) {
      std::string number = std::to_string(i);
      std::string line = std::string(9 - number.size(), '0') + number + "\n";
      all[0] += line;
      if (i % 3 == 0) all[1] += line;
    }
    std::array<uint64_t, 2> next{};
    uint64_t lost = 0;
    bool over = false;
    for (int round = 0; round < 3000 && !over; round++) {
      Connection connection = agent.attach(process, next[0], next[1]);
      auto first = connection.receive();
      REQUIRE(first);
      REQUIRE(first->type == MSB_ATTACHED);
      for (size_t i = 0; i < 2; i++) {
        uint64_t offset = first->as<msb_attached>().offsets[i];
        REQUIRE(offset >= next[i]);
        lost += offset - next[i];
        next[i] = offset;
      }
      for (auto frames = random() % 6; frames > 0 && !over; frames--) {
        auto got = connection.receive();
        REQUIRE(got);
        if (got->type == MSB_EXITED) {
          CHECK(got->as<msb_exited>().offsets[0] == all[0].size());
          CHECK(got->as<msb_exited>().offsets[1] == all[1].size());
          over = true;
          break;
        }
        size_t i = got->type == MSB_STDOUT ? 0 : 1;
        REQUIRE((got->type == MSB_STDOUT || got->type == MSB_STDERR));
        REQUIRE(got->payload == all[i].substr(next[i], got->payload.size()));
        next[i] += got->payload.size();
      }
      if (random() % 4 == 0) {  // dies in the middle of a frame
        char some[1000];
        [[maybe_unused]] ssize_t n =
            recv(connection.descriptor(), some, random() % sizeof some, MSG_DONTWAIT);
      }
      connection.close();
      if (random() % 3 == 0) usleep(static_cast<useconds_t>(random() % 3000));
    }
    REQUIRE(over);
    CHECK(next[0] == all[0].size());
    CHECK(next[1] == all[1].size());
    if (keep > all[0].size()) CHECK(lost == 0);
    CHECK(agent.request_about(MSB_FORGET, process).type == MSB_DONE);
  }
}

// Input is repeated from where the agent says, and the process must get each byte once.
TEST_CASE("input_sent_again_after_reattaching_arrives_once") {
  Agent agent;
  std::mt19937 random(21);
  std::string input(1500000, '\0');
  for (char& byte : input) byte = static_cast<char>('a' + random() % 26);
  uint32_t process = start_and_leave(agent, kept("exec cat", 4 * 1024 * 1024));
  uint64_t taken = 0;
  bool ended = false;
  for (int round = 0; round < 2000 && !ended; round++) {
    Connection connection = agent.attach(process, MSB_OFFSET_END);
    auto first = connection.receive();
    REQUIRE(first);
    msb_attached attached = first->as<msb_attached>();
    REQUIRE(attached.input >= taken);
    taken = attached.input;
    ended = (attached.flags & MSB_ATTACHED_INPUT_ENDED) != 0;
    if (ended) break;
    std::string bytes;
    size_t at = taken;
    for (auto frames = random() % 5 + 1; frames > 0 && at < input.size(); frames--) {
      std::string piece = input.substr(at, random() % MSB_MAX_DATA + 1);
      bytes += frame(MSB_STDIN, piece);
      at += piece.size();
    }
    if (at == input.size()) bytes += frame(MSB_STDIN);
    if (random() % 3 == 0) bytes.resize(random() % bytes.size());
    connection.send_until_stuck(bytes);
    // Most die at once, some let the agent work.
    if (random() % 3 == 0) usleep(static_cast<useconds_t>(random() % 5000));
  }
  REQUIRE(ended);
  CHECK(taken == input.size());
  Outcome outcome = agent.attach(process, 0).finish();
  CHECK(outcome.output == input);
}

TEST_CASE("process_that_ended_takes_the_rest_of_its_input_and_drops_it") {
  Agent agent;
  Connection connection = agent.start(kept("exit 6"));
  for (int i = 0; i < 100; i++) connection.send_input(std::string(MSB_MAX_DATA, 'x'));
  connection.end_input();
  Outcome outcome = connection.finish();
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 6);
}

TEST_CASE("only_the_youngest_of_those_that_ended_stay") {
  Agent agent;
  std::vector<uint32_t> processes;
  for (int i = 0; i < 70; i++) {
    processes.push_back(start_and_leave(agent, kept("exit 0")));
    wait_for(agent, processes.back());
  }
  std::vector<msb_process> left = agent.list();
  CHECK(left.size() == 64);
  for (const msb_process& each : left) {
    CHECK(each.process >= processes[6]);
    CHECK(each.state == MSB_PROCESS_ENDED);
  }
  CHECK(agent.request_about(MSB_FORGET, processes[5]).type == MSB_REFUSED);
  CHECK(agent.request_about(MSB_FORGET, processes[6]).type == MSB_DONE);
}

TEST_CASE("list_tells_what_runs_and_what_is_kept") {
  Agent agent;
  CHECK(agent.list().empty());
  Start start = kept("echo hello; cat");
  start.label = std::string(300, 'l');
  start.arguments[0] = "/bin/sh";
  Connection connection = agent.start(start);
  msb_started started = connection.started();
  REQUIRE(connection.receive_until("hello\n"));
  std::vector<Frame> answer = agent.request(MSB_LIST);
  REQUIRE(answer.size() == 2);
  msb_process process = answer[0].as<msb_process>();
  CHECK(process.process == started.process);
  CHECK(process.pid == started.pid);
  CHECK(process.state == MSB_PROCESS_RUNS);
  CHECK(process.flags == MSB_START_KEEP);
  CHECK(process.attached == 1);
  CHECK(process.started_ns > 0);
  CHECK(process.offsets[0] == 6);
  CHECK(process.oldest[0] == 0);
  CHECK(answer[0].payload.substr(sizeof process) ==
        std::string(255, 'l') + '\0' + "/bin/sh" + '\0');
  connection.close();
  REQUIRE(has_written(agent, started.process, 6));
  CHECK(find(agent, started.process).attached == 0);
  Connection other = agent.start(shell("cat"));
  uint32_t second = other.started().process;
  CHECK(agent.list().size() == 2);
  other.end_input();
  other.finish();
  CHECK(find(agent, second).process == 0);
}

TEST_CASE("wait_is_answered_once_the_process_has_ended_and_holds_up_what_is_behind_it") {
  Agent agent;
  uint32_t process = start_and_leave(agent, kept("cat; exit 4"));
  Connection waiter = agent.connect();
  waiter.send(frame(MSB_WAIT, bytes_of(msb_process_id{.process = process})) +
              frame(MSB_PING, "behind"));
  Connection other = agent.connect();
  other.send(frame(MSB_WAIT, bytes_of(msb_process_id{.process = process})));
  CHECK(waiter.send_until_stuck(frame(MSB_PING, std::string(1024, 'x'))) > 0);
  Connection connection = agent.attach(process, 0);
  connection.end_input();
  CHECK(connection.finish().exited);
  auto first = waiter.receive();
  REQUIRE(first);
  CHECK(first->type == MSB_EXITED);
  CHECK(first->as<msb_exited>().value == 4);
  auto second = waiter.receive();
  REQUIRE(second);
  CHECK(second->payload == "behind");
  auto its = other.receive();
  REQUIRE(its);
  CHECK(its->type == MSB_EXITED);
}

TEST_CASE("wait_is_answered_although_the_one_that_has_the_process_does_not_read") {
  Agent agent;
  Connection stuck = agent.start(kept("head -c 300000 /dev/zero; kill -9 $$", 70000));
  uint32_t process = stuck.started().process;
  Frame before = agent.send_signal(process, SIGKILL);
  CHECK(before.type == MSB_DONE);
  CHECK(wait_for(agent, process).value == SIGKILL);
}

TEST_CASE("wait_and_forget_are_refused_where_they_make_no_sense") {
  Agent agent;
  Connection connection = agent.start(shell("cat"));
  uint32_t process = connection.started().process;
  Frame answer = agent.request_about(MSB_WAIT, process);
  CHECK(answer.as<msb_failure>().stage == MSB_STAGE_REQUEST);
  answer = agent.request_about(MSB_WAIT, 99);
  CHECK(answer.as<msb_failure>().stage == MSB_STAGE_PROCESS);
  answer = agent.request_about(MSB_FORGET, process);
  CHECK(answer.as<msb_failure>().stage == MSB_STAGE_REQUEST);
  answer = agent.request_about(MSB_FORGET, 99);
  CHECK(answer.as<msb_failure>().stage == MSB_STAGE_PROCESS);
}

TEST_CASE("process_forgotten_while_a_connection_has_it_is_told_to_the_end") {
  Agent agent;
  Connection connection = agent.start(kept("head -c 3000000 /dev/zero", 4 * 1024 * 1024));
  uint32_t process = connection.started().process;
  wait_for(agent, process);
  CHECK(agent.request_about(MSB_FORGET, process).type == MSB_DONE);
  CHECK(agent.list().empty());
  Outcome outcome = connection.finish();
  CHECK(outcome.output.size() == 3000000);
  CHECK(outcome.exited);
}
