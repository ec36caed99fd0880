// SPDX-License-Identifier: Apache-2.0
// Processes in a pid namespace of their own, as in a machine. Only root can make one.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

/// A program that calls reboot(2), after making sure that it cannot reach the machine that the test
/// runs on, and after the Python statement `before`.
Start reboot(const std::string& command, const std::string& before = "pass") {
  char outside[PATH_MAX] = {};
  REQUIRE(readlink("/proc/self/ns/pid", outside, sizeof outside - 1) > 0);
  return {.arguments = {"python3", "-c",
                        "import ctypes, os, sys\n"
                        "if os.readlink('/proc/self/ns/pid') == sys.argv[1]: sys.exit(77)\n" +
                            before +
                            "\n"
                            "ctypes.CDLL(None).reboot(" +
                            command + ")\n",
                        outside}};
}

/// The states of a process's children, as proc(5) has them.
std::string child_states(pid_t parent) {
  const std::string process = std::to_string(parent);
  std::ifstream children("/proc/" + process + "/task/" + process + "/children");
  std::string states;
  for (std::string child; children >> child;) {
    std::string stat;
    std::getline(std::ifstream("/proc/" + child + "/stat"), stat);
    states += stat.substr(stat.rfind(')') + 2, 1);
  }
  return states;
}

}  // namespace

TEST_CASE("namespace_shows_its_own_processes_only") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kOwn);
  Outcome outcome = agent.run(
      shell("echo $$; set -- /proc/[0-9]*; echo $#; cat /proc/sys/net/ipv4/ping_group_range"));
  // The init and the shell.
  CHECK(outcome.output == "2\n2\n0\t2147483647\n");
  CHECK(outcome.started.pid == 2);
}

TEST_CASE("namespace_init_is_not_taken_for_memory_but_programs_are") {
  if (!can_raise_limits()) return;
  Agent agent(Agent::Namespace::kOwn);
  Outcome outcome = agent.run(shell("cat /proc/1/oom_score_adj /proc/self/oom_score_adj"));
  CHECK(outcome.output == "-1000\n0\n");
}

TEST_CASE("namespace_init_has_nothing_of_the_agent_open") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kOwn);
  CHECK(agent.run(shell("ls /proc/1/fd")).output == "0\n1\n2\n");
}

TEST_CASE("namespace_leaves_no_zombies") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kOwn);
  Outcome outcome =
      agent.run(shell("(sleep 0.1 &) ; (sh -c 'exit 3' &) ; sleep 0.5; "
                      "grep -l 'State:.*Z' /proc/[0-9]*/status; echo done"));
  CHECK(outcome.output == "done\n");
}

TEST_CASE("namespace_init_cannot_be_killed_from_inside") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kOwn);
  Outcome outcome =
      agent.run(shell("kill -9 1; kill -TERM 1; kill -HUP 1; kill -INT 1; sleep 0.1; echo alive"));
  CHECK(outcome.output == "alive\n");
  CHECK(agent.run(shell("echo alive")).output == "alive\n");
}

TEST_CASE("namespace_ends_with_what_reboot_asked_for") {
  if (geteuid() != 0) return;
  for (auto [command, reason] : {std::pair{"0x01234567", MSB_BYE_RESTART},
                                 {"0x4321fedc", MSB_BYE_POWER_OFF},
                                 {"ctypes.c_int(0xcdef0123)", MSB_BYE_POWER_OFF}}) {
    CAPTURE(command);
    Agent agent(Agent::Namespace::kOwn);
    Connection connection = agent.start(reboot(command));
    CHECK(agent.wait() == reason);
  }
}

TEST_CASE("namespace_that_was_rebooted_says_so_even_if_the_host_shuts_down_at_once") {
  if (geteuid() != 0) return;
  for (int round = 0; round < 5; round++) {
    Agent agent(Agent::Namespace::kOwn);
    Connection connection = agent.start(reboot("0x01234567"));
    while (auto next = connection.receive()) {
      if (next->type == MSB_EXITED) break;
    }
    agent.shut_down();
    CHECK(agent.wait() == MSB_BYE_RESTART);
  }
}

TEST_CASE("namespace_reboot_counts_if_the_agent_learns_of_the_shutdown_first_and_of_both_at_once") {
  if (geteuid() != 0) return;
  std::string directory = std::filesystem::temp_directory_path() / "msb-namespace-XXXXXX";
  REQUIRE(mkdtemp(directory.data()) != nullptr);
  const std::string gate = directory + "/gate";
  REQUIRE(mkfifo(gate.c_str(), 0600) == 0);
  Agent agent(Agent::Namespace::kOwn);
  // An orphan does it: a child of the agent would keep the namespace from ending until it is
  // reaped.
  Connection connection =
      agent.start(reboot("0x01234567", "if os.fork(): os._exit(0)\nopen('" + gate + "').read()"));
  while (auto next = connection.receive()) {
    if (next->type == MSB_EXITED) break;
  }
  const int open_gate = open(gate.c_str(), O_WRONLY | O_CLOEXEC);  // once the program waits there
  REQUIRE(open_gate >= 0);
  agent.list();  // so that it is done with the death of the child, and learns of nothing else
  // Not by a signal, of which its signalfd would learn first.
  REQUIRE(ptrace(PTRACE_SEIZE, agent.pid(), nullptr, nullptr) == 0);
  REQUIRE(ptrace(PTRACE_INTERRUPT, agent.pid(), nullptr, nullptr) == 0);
  REQUIRE(waitpid(agent.pid(), nullptr, 0) == agent.pid());
  agent.shut_down();
  close(open_gate);
  for (int i = 0; i < kPatienceSeconds * 100 && child_states(agent.pid()) != "Z"; i++) {
    usleep(10000);
  }
  REQUIRE(child_states(agent.pid()) == "Z");
  REQUIRE(ptrace(PTRACE_DETACH, agent.pid(), nullptr, nullptr) == 0);
  CHECK(agent.wait() == MSB_BYE_RESTART);
  std::filesystem::remove_all(directory);
}

TEST_CASE("namespace_with_many_processes_ends_whole") {
  if (geteuid() != 0) return;
  Agent agent(Agent::Namespace::kOwn);
  std::string marker = "98765.4" + std::to_string(getpid());
  Connection connection = agent.start(shell("for i in 1 2 3 4 5 6 7 8; do setsid sleep " + marker +
                                            " & done; sleep 0.2; echo up; wait"));
  REQUIRE(connection.receive()->type == MSB_STARTED);
  REQUIRE(connection.receive()->payload == "up\n");
  agent.shut_down();
  CHECK(agent.wait() == MSB_BYE_REQUESTED);
  std::string find = "! pgrep -f '^sleep " + marker + "' > /dev/null";
  CHECK(std::system(find.c_str()) == 0);
}
