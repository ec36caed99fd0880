// SPDX-License-Identifier: Apache-2.0
// What a program finds when it starts, how it is refused, and how its end is told.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

/// A directory that anyone may use, and that goes away.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    char name[] = "/tmp/msb-init-test-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
    REQUIRE(chmod(name, 0755) == 0);
  }
  ~ScratchDirectory() { std::filesystem::remove_all(path); }
  std::string file(const std::string& name, const std::string& text, mode_t mode) const {
    std::string full = path + "/" + name;
    std::ofstream(full) << text;
    REQUIRE(chmod(full.c_str(), mode) == 0);
    return full;
  }
  std::string path;
};

Start program(std::vector<std::string> arguments) {
  return {.arguments = std::move(arguments)};
}

void check_refused(const Outcome& outcome, uint32_t stage, uint32_t code) {
  CAPTURE(outcome.why);
  REQUIRE(outcome.refused);
  CHECK(outcome.refused->stage == stage);
  CHECK(outcome.refused->code == code);
  CHECK_FALSE(outcome.why.empty());
  CHECK(outcome.closed);
}

}  // namespace

TEST_CASE("process_gets_its_arguments_variables_and_directory") {
  Agent agent;
  Start start = shell("printf '%s,' \"$0\" \"$@\"; echo \"$A\"; pwd; echo oops >&2; exit 3");
  start.arguments.insert(start.arguments.end(), {"zero", "one two", ""});
  start.variables.push_back("A=\xff x");
  start.directory = "/usr/bin";
  Outcome outcome = agent.run(start);
  CHECK(outcome.output == "zero,one two,,\xff x\n/usr/bin\n");
  CHECK(outcome.error == "oops\n");
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->kind == MSB_EXIT_STATUS);
  CHECK(outcome.exited->value == 3);
  CHECK(outcome.exited->flags == 0);
  CHECK(outcome.closed);
}

TEST_CASE("process_has_only_its_variables") {
  Agent agent;
  Start start = program({"/usr/bin/env"});
  start.variables = {"ONLY=this", "HOME=/there"};
  CHECK(agent.run(start).output == "ONLY=this\nHOME=/there\n");
}

TEST_CASE("process_without_PATH_is_looked_for_where_programs_are") {
  Agent agent;
  Start start = program({"env"});
  start.variables = {};
  Outcome outcome = agent.run(start);
  REQUIRE(outcome.exited);
  CHECK(outcome.output.starts_with("HOME=/"));
}

TEST_CASE("process_has_three_descriptors_and_is_otherwise_untouched") {
  Agent agent;
  Connection other = agent.start(shell("cat"));  // whose pipes must not leak into the next
  REQUIRE(other.receive()->type == MSB_STARTED);
  Outcome outcome = agent.run(shell("ls /proc/self/fd; umask"));
  // 3 is ls looking at the directory.
  CHECK(outcome.output == "0\n1\n2\n3\n0022\n");
  outcome = agent.run(program({"grep", "-E", "^(SigBlk|SigIgn)", "/proc/self/status"}));
  CHECK(outcome.output == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST_CASE("process_may_open_as_many_files_as_in_a_container") {
  if (!can_raise_limits()) return;
  Agent agent;
  CHECK(agent.run(shell("ulimit -n; ulimit -Hn")).output == "1024\n1048576\n");
}

TEST_CASE("process_leads_its_own_session") {
  Agent agent;
  Outcome outcome = agent.run(shell("cut -d' ' -f1,5,6 /proc/$$/stat"));
  std::string pid = std::to_string(outcome.started.pid);
  CHECK(outcome.output == pid + " " + pid + " " + pid + "\n");
}

TEST_CASE("process_numbers_are_never_used_again") {
  Agent agent;
  uint32_t first = agent.run(program({"true"})).started.process;
  uint32_t second = agent.run(program({"true"})).started.process;
  CHECK(first != 0);
  CHECK(second == first + 1);
}

TEST_CASE("process_of_another_user_has_its_numbers_and_can_reopen_its_output") {
  if (geteuid() != 0) return;
  Agent agent;
  Start start = shell("id -u; id -g; id -G; echo again > /dev/stdout; echo error > /dev/stderr");
  start.user = "12345:23456";
  Outcome outcome = agent.run(start);
  CHECK(outcome.output == "12345\n23456\n23456\nagain\n");
  CHECK(outcome.error == "error\n");
}

TEST_CASE("process_that_is_not_found_is_refused") {
  Agent agent;
  check_refused(agent.run(program({"no-such-program"})), MSB_STAGE_EXECUTE, ENOENT);
  check_refused(agent.run(program({"/no/such/program"})), MSB_STAGE_EXECUTE, ENOENT);
  check_refused(agent.run(program({""})), MSB_STAGE_EXECUTE, ENOENT);
  check_refused(agent.run(program({std::string(300, 'x')})), MSB_STAGE_EXECUTE, ENAMETOOLONG);
  Start start = program({"true"});
  start.variables = {"PATH=" + std::string(5000, 'x') + ":/no/such::/etc/passwd"};
  check_refused(agent.run(start), MSB_STAGE_EXECUTE, ENOENT);
}

TEST_CASE("process_that_cannot_be_executed_is_refused_and_says_why") {
  Agent agent;
  ScratchDirectory scratch;
  std::string plain = scratch.file("plain", "#!/bin/sh\n", 0644);
  check_refused(agent.run(program({plain})), MSB_STAGE_EXECUTE, EACCES);
  check_refused(agent.run(program({scratch.path})), MSB_STAGE_EXECUTE, EACCES);

  std::string garbage = scratch.file("garbage", "not a program\n", 0755);
  check_refused(agent.run(program({garbage})), MSB_STAGE_EXECUTE, ENOEXEC);

  std::string orphan = scratch.file("orphan", "#!/no/such/interpreter\n", 0755);
  Outcome outcome = agent.run(program({orphan}));
  check_refused(outcome, MSB_STAGE_EXECUTE, ENOENT);
  CHECK(outcome.why.find("interpreter") != std::string::npos);

  Start start = program({"true", std::string(200 * 1024, 'x')});
  check_refused(agent.run(start), MSB_STAGE_EXECUTE, E2BIG);
}

TEST_CASE("process_is_looked_for_past_what_is_not_executable") {
  Agent agent;
  ScratchDirectory scratch;
  scratch.file("tool", "#!/bin/sh\necho wrong\n", 0644);
  std::filesystem::create_directory(scratch.path + "/bin");
  scratch.file("bin/tool", "#!/bin/sh\necho right\n", 0755);
  Start start = program({"tool"});
  start.variables = {"PATH=" + scratch.path + ":" + scratch.path + "/bin"};
  CHECK(agent.run(start).output == "right\n");
  start.variables = {"PATH=" + scratch.path + ":/no/such"};
  check_refused(agent.run(start), MSB_STAGE_EXECUTE, EACCES);
  // An empty part is the working directory.
  start.directory = scratch.path + "/bin";
  start.variables = {"PATH=/no/such:"};
  CHECK(agent.run(start).output == "right\n");
}

TEST_CASE("process_with_a_missing_directory_is_refused_or_gets_it_made") {
  Agent agent;
  ScratchDirectory scratch;
  Start start = program({"pwd"});
  start.directory = scratch.path + "/a/b/c";
  check_refused(agent.run(start), MSB_STAGE_DIRECTORY, ENOENT);
  start.flags = MSB_START_CREATE_DIRECTORY;
  CHECK(agent.run(start).output == start.directory + "\n");
  CHECK((std::filesystem::status(start.directory).permissions() & std::filesystem::perms::mask) ==
        std::filesystem::perms{0755});
  scratch.file("file", "", 0644);
  start.directory = scratch.path + "/file/below";
  check_refused(agent.run(start), MSB_STAGE_DIRECTORY, ENOTDIR);
}

TEST_CASE("process_killed_by_a_signal_says_which") {
  Agent agent;
  Connection connection = agent.start(program({"sleep", "1000"}));
  auto started = connection.receive();
  REQUIRE(started);
  agent.send_signal(started->as<msb_started>().process, SIGTERM);
  auto exited = connection.receive();
  REQUIRE(exited);
  CHECK(exited->type == MSB_EXITED);
  CHECK(exited->as<msb_exited>().kind == MSB_EXIT_SIGNAL);
  CHECK(exited->as<msb_exited>().value == SIGTERM);
  CHECK(exited->as<msb_exited>().flags == 0);
}

TEST_CASE("signal_of_no_kind_or_to_nobody_is_refused_and_changes_nothing") {
  Agent agent;
  Connection connection = agent.start(shell("trap 'echo caught; exit 7' USR1; echo ready; cat"));
  uint32_t process = connection.started().process;
  REQUIRE(connection.receive_until("ready\n"));
  for (uint32_t nobody : {0u, process + 1, UINT32_MAX}) {
    Frame answer = agent.send_signal(nobody, SIGKILL);
    CHECK(answer.type == MSB_REFUSED);
    CHECK(answer.as<msb_failure>().stage == MSB_STAGE_PROCESS);
  }
  for (uint32_t signal : {0u, 65u, UINT32_MAX}) {
    Frame answer = agent.send_signal(process, signal);
    CHECK(answer.type == MSB_REFUSED);
    CHECK(answer.as<msb_failure>().stage == MSB_STAGE_REQUEST);
  }
  CHECK(agent.send_signal(process, SIGKILL, 2).type == MSB_REFUSED);
  CHECK(agent.send_signal(process, SIGUSR1).type == MSB_DONE);
  connection.end_input();
  Outcome outcome = connection.finish();
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 7);
  CHECK(outcome.error.empty());
  // It lost the race, as any host may.
  CHECK(agent.send_signal(process, SIGKILL).type == MSB_DONE);
}

TEST_CASE("signal_reaches_the_process_or_its_group") {
  Agent agent;
  Connection connection =
      agent.start(shell("trap 'echo leader' USR1; (trap 'echo member' USR1; echo up; "
                        "while :; do sleep 0.05; done) & echo up; while :; do sleep 0.05; done"));
  uint32_t process = connection.started().process;
  REQUIRE(connection.receive_until("up\n"));
  usleep(200000);
  CHECK(agent.send_signal(process, SIGUSR1, MSB_SIGNAL_GROUP).type == MSB_DONE);
  REQUIRE(connection.receive_until("member\n"));
  CHECK(agent.send_signal(process, SIGKILL, MSB_SIGNAL_GROUP).type == MSB_DONE);
  Outcome outcome = connection.finish();
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == SIGKILL);
}

TEST_CASE("process_of_large_arguments_runs") {
  Agent agent;
  Start start = shell("echo $#");
  start.arguments.push_back("zero");
  for (int i = 0; i < 20; i++) start.arguments.push_back(std::string(50 * 1024, 'x'));
  CHECK(agent.run(start).output == "20\n");
}

TEST_CASE("process_of_two_mebibytes_of_arguments_runs") {
  Agent agent;
  // A quarter of the stack limit is for them (bprm_stack_limits in fs/exec.c).
  Start start = shell("echo $#");
  start.limits = {
      {.resource = 3, .reserved = 0, .soft = 64u << 20, .hard = UINT64_MAX}};  // RLIMIT_STACK
  start.arguments.push_back("zero");
  for (int i = 0; i < 20; i++) start.arguments.push_back(std::string(100 * 1024, 'x'));
  CHECK(agent.run(start).output == "20\n");
}
