// SPDX-License-Identifier: Apache-2.0
// What bounds a process: time, limits, its user; and what bounds the agent.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

msb_limit limit(int resource, uint64_t soft, uint64_t hard) {
  return {.resource = static_cast<uint32_t>(resource), .reserved = 0, .soft = soft, .hard = hard};
}

void check_refused(const Outcome& outcome, uint32_t stage, uint32_t code) {
  CAPTURE(outcome.why);
  REQUIRE(outcome.refused);
  CHECK(outcome.refused->stage == stage);
  CHECK(outcome.refused->code == code);
  CHECK(outcome.closed);
}

/// An /etc of the agent's own, in its mount namespace.
void replace_etc() {
  if (mount("tmpfs", "/etc", "tmpfs", 0, nullptr) != 0) std::exit(97);
  std::ofstream("/etc/passwd") << "root:x:0:0::/root:/bin/sh\n"
                                  "anna:x:1000:100::/home/anna:/bin/sh\n";
  std::ofstream("/etc/group") << "users:x:100:\nwheel:x:10:anna,bob\ntape:x:26:\n";
}

void replace_etc_by_pipes() {
  if (mount("tmpfs", "/etc", "tmpfs", 0, nullptr) != 0 || mkfifo("/etc/passwd", 0644) != 0 ||
      mkfifo("/etc/group", 0644) != 0) {
    std::exit(97);
  }
}

/// Starts processes that read their input until one is refused for want of resources, and then ends
/// them all.
void exhaust(const Agent& agent, const Start& start, uint32_t code) {
  constexpr int kMany = 12;
  std::vector<Connection> running;
  bool refused = false;
  for (int i = 0; i < kMany && !refused; i++) {
    Connection connection = agent.start(start);
    auto first = connection.receive();
    REQUIRE(first);
    refused = first->type == MSB_REFUSED;
    if (refused) {
      CHECK(first->as<msb_failure>().stage == MSB_STAGE_RESOURCES);
      CHECK(first->as<msb_failure>().code == code);
    } else {
      running.push_back(std::move(connection));
    }
  }
  CHECK(refused);
  CHECK(running.size() >= 3);
  for (Connection& connection : running) connection.end_input();
  for (Connection& connection : running) CHECK(connection.finish().exited);
}

}  // namespace

TEST_CASE("process_whose_time_is_over_is_killed_with_its_group") {
  Agent agent;
  Start start = shell("sleep 1000 & echo $!; wait");
  start.timeout_ms = 300;
  Connection connection = agent.start(start);
  connection.started();
  auto printed = connection.receive();
  REQUIRE(printed);
  pid_t member = std::stoi(printed->payload);
  Outcome outcome = connection.finish();
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->kind == MSB_EXIT_SIGNAL);
  CHECK(outcome.exited->value == SIGKILL);
  CHECK(outcome.exited->flags == MSB_EXITED_TIMED_OUT);
  CHECK(dies(member));
}

TEST_CASE("process_that_ends_in_time_is_left_alone") {
  Agent agent;
  Start start = shell("exit 2");
  start.timeout_ms = 60000;
  Outcome outcome = agent.run(start);
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 2);
  CHECK(outcome.exited->flags == 0);
}

TEST_CASE("process_that_is_kept_is_killed_in_time_without_a_connection") {
  Agent agent;
  Start start = shell("sleep 1000");
  start.flags = MSB_START_KEEP;
  start.timeout_ms = 200;
  uint32_t process = agent.start(start).started().process;
  Frame answer = agent.request_about(MSB_WAIT, process);
  CHECK(answer.as<msb_exited>().flags == MSB_EXITED_TIMED_OUT);
}

TEST_CASE("exit_tells_what_the_process_used") {
  Agent agent;
  Outcome outcome = agent.run({.arguments = {"python3", "-c",
                                             "x = bytearray(60_000_000)\n"
                                             "import time\n"
                                             "end = time.process_time() + 0.3\n"
                                             "while time.process_time() < end: pass\n"}});
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->user_us + outcome.exited->system_us >= 300000);
  CHECK(outcome.exited->max_rss_kib >= 58000);
  CHECK(outcome.exited_text.empty());
}

TEST_CASE("exit_tells_of_a_core_dump") {
  Agent agent;
  std::string directory = "/tmp/msb-core-test-" + std::to_string(getpid());
  Start start = shell("kill -SEGV $$");
  start.flags = MSB_START_CREATE_DIRECTORY;
  start.directory = directory;
  start.limits = {limit(RLIMIT_CORE, 0, 0)};
  Outcome outcome = agent.run(start);
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == SIGSEGV);
  CHECK((outcome.exited->flags & MSB_EXITED_CORE_DUMPED) == 0);
  std::ifstream pattern("/proc/sys/kernel/core_pattern");
  std::string where;
  std::getline(pattern, where);
  start.limits = {limit(RLIMIT_CORE, 100000000, 100000000)};
  outcome = agent.run(start);
  std::filesystem::remove_all(directory);
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == SIGSEGV);
  // Where a program takes dumps, or none are made, there is nothing to be seen here.
  if (where == "core") CHECK((outcome.exited->flags & MSB_EXITED_CORE_DUMPED) != 0);
}

TEST_CASE("process_has_the_limits_and_the_umask_that_were_asked_for") {
  Agent agent;
  Start start = shell("ulimit -Sn; ulimit -Hn; ulimit -Sf; ulimit -c; umask");
  start.limits = {limit(RLIMIT_NOFILE, 50, 60), limit(RLIMIT_FSIZE, 512 * 1024, UINT64_MAX),
                  limit(RLIMIT_CORE, 0, 0)};
  start.umask = 077;
  CHECK(agent.run(start).output == "50\n60\n1024\n0\n0077\n");
}

TEST_CASE("process_whose_limits_cannot_be_set_is_refused") {
  Agent agent;
  Start start = shell("true");
  start.limits = {limit(RLIMIT_CORE, 0, 0), limit(RLIMIT_NOFILE, 1ull << 40, 1ull << 40)};
  check_refused(agent.run(start), MSB_STAGE_REQUEST, EPERM);
}

TEST_CASE("directory_that_is_made_does_not_follow_the_umask") {
  Agent agent;
  std::string directory = "/tmp/msb-umask-test-" + std::to_string(getpid());
  Start start = shell("stat -c %a .");
  start.flags = MSB_START_CREATE_DIRECTORY;
  start.directory = directory;
  start.umask = 077;
  CHECK(agent.run(start).output == "755\n");
  std::filesystem::remove_all(directory);
}

TEST_CASE("process_without_standard_input_has_dev_null_there") {
  Agent agent;
  Start start = shell("readlink /proc/self/fd/0; cat; echo done");
  start.flags = MSB_START_NO_STDIN;
  CHECK(agent.start(start).finish().output == "/dev/null\ndone\n");
  for (const std::string& bytes : {frame(MSB_STDIN), frame(MSB_STDIN, "x")}) {
    start = shell("sleep 1000");
    start.flags = MSB_START_NO_STDIN;
    Connection connection = agent.start(start);
    connection.started();
    connection.send(bytes);
    CHECK(connection.is_closed_by_agent());
  }
}

TEST_CASE("process_is_a_user_by_name_with_home_and_groups") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kOwn, replace_etc);
  Start start = shell("id -u; id -g; id -G; echo $HOME");
  start.variables = {"PATH=/usr/bin:/bin"};
  start.user = "anna";
  CHECK(agent.run(start).output == "1000\n100\n100 10\n/home/anna\n");
  start.user = "1000";
  CHECK(agent.run(start).output == "1000\n100\n100 10\n/home/anna\n");
  start.user = "anna:tape";
  CHECK(agent.run(start).output == "1000\n26\n26\n/home/anna\n");
  start.user = "anna";
  start.groups = {"tape", "12"};
  CHECK(agent.run(start).output == "1000\n100\n100 12 26\n/home/anna\n");
  start = shell("id -u; id -G; echo $HOME");
  start.variables = {"PATH=/usr/bin:/bin"};
  CHECK(agent.run(start).output == "0\n0\n/root\n");
  start.user = "77";
  CHECK(agent.run(start).output == "77\n0\n/\n");
  start.variables.push_back("HOME=/mine");
  CHECK(agent.run(start).output == "77\n0\n/mine\n");
}

TEST_CASE("process_of_a_user_or_group_that_is_not_there_is_refused_by_name") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kOwn, replace_etc);
  for (auto [user, named] :
       {std::pair{"carl", "carl"}, {"anna:carls", "\"carls\""}, {"anna:", "\"\""}}) {
    Start start = shell("true");
    start.user = user;
    Outcome outcome = agent.run(start);
    check_refused(outcome, MSB_STAGE_USER, ENOENT);
    CHECK(outcome.why.find(named) != std::string::npos);
  }
  Start start = shell("true");
  start.groups = {"tape", "tapes"};
  Outcome outcome = agent.run(start);
  check_refused(outcome, MSB_STAGE_USER, ENOENT);
  CHECK(outcome.why.find("tapes") != std::string::npos);
  start.groups = {};
  start.user = "4294967295";
  check_refused(agent.run(start), MSB_STAGE_USER, EINVAL);
}

TEST_CASE("user_files_that_never_end_hold_up_their_own_process_only") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kOwn, replace_etc_by_pipes);
  Start start = shell("true");
  start.user = "anna";
  Connection stuck = agent.start(start);
  CHECK(agent.request(MSB_PING, "alive").back().payload == "alive");
  stuck.close();
  start.timeout_ms = 200;
  check_refused(agent.run(start), MSB_STAGE_RESOURCES, 0);
  CHECK(agent.list().empty());
}

TEST_CASE("agent_without_descriptors_refuses_and_lives_on") {
  Agent agent(Agent::Namespace::kNone, [] {
    rlimit files{.rlim_cur = 40, .rlim_max = 40};
    setrlimit(RLIMIT_NOFILE, &files);
  });
  Start start = shell("cat");
  start.limits = {limit(RLIMIT_NOFILE, 40, 40)};
  exhaust(agent, start, EMFILE);
  start.arguments[2] = "echo fine";
  CHECK(agent.run(start).output == "fine\n");
}

TEST_CASE("agent_that_may_have_no_more_processes_refuses_and_lives_on") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kNone, [] {
    // Nobody else is this user, and only root is free of the limit.
    constexpr uid_t kUser = 54321;
    rlimit processes{.rlim_cur = 6, .rlim_max = 6};
    setrlimit(RLIMIT_NPROC, &processes);
    if (setgroups(0, nullptr) != 0 || setresgid(kUser, kUser, kUser) != 0 ||
        setresuid(kUser, kUser, kUser) != 0) {
      std::exit(97);
    }
  });
  Start start{.arguments = {"cat"}};
  // An agent that is not root cannot have the limit of root.
  start.limits = {limit(RLIMIT_NOFILE, 20, 20)};
  exhaust(agent, start, EAGAIN);
  CHECK(agent.run(start).exited);
}
