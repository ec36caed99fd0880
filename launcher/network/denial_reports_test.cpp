// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/denial_reports.hpp"

#include <doctest/doctest.h>
#include <netinet/in.h>

#include <string>
#include <utility>
#include <vector>

#include "launcher/network/testing.hpp"

namespace msb::launcher {
namespace {

NetworkDenial denial(std::uint32_t port, std::uint32_t protocol = IPPROTO_TCP) {
  NetworkDenial denial;
  denial.protocol = protocol;
  denial.destination = {4, {10, 0, 0, 1}};
  denial.source_port = 40000;
  denial.destination_port = port;
  return denial;
}

struct Fixture {
  ~Fixture() {
    reports.close();
    wire.loop->drain();
  }
  bool run_until(const std::function<bool()>& condition) const {
    return testing::run_until(wire, condition);
  }
  // The agent's answer to a question, of which it has `count` bytes: OWNER, or DONE for nobody.
  void answer(const std::string& name) {
    REQUIRE(run_until([&] { return !agent.connections.empty(); }));
    std::string frame;
    const auto put = [&](std::uint32_t value) {
      frame.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    put(name.empty() ? MSB_DONE : MSB_OWNER);
    put(static_cast<std::uint32_t>(8 + name.size()));
    put(name.empty() ? 0 : 77);
    put(name.empty() ? 0 : 1000);
    frame += name;
    if (!greeted) {
      agent.connections.front().say("OK 1\n");
      greeted = true;
    }
    agent.connections.front().say(frame);
  }

  protocol::testing::Wire wire;
  testing::FakeAgent agent;
  bool greeted = false;
  std::vector<std::pair<std::uint32_t, std::string>> told;
  int asked = 0;
  DenialReports reports{*wire.loop, agent.opener(),
                        [this](const NetworkDenial& denial, const auto& program) {
                          told.emplace_back(denial.destination_port, program ? program->name : "");
                        }};
};

TEST_CASE_FIXTURE(Fixture,
                  "denials are told in their order, with the program that the agent names") {
  reports.add(denial(1), [this] { ++asked; });
  reports.add(denial(2), [this] { ++asked; });
  CHECK(told.empty());
  answer("curl");
  answer("");
  CHECK(run_until([this] { return told.size() == 2; }));
  CHECK(told[0] == std::pair<std::uint32_t, std::string>{1, "curl"});
  CHECK(told[1] == std::pair<std::uint32_t, std::string>{2, ""});
  CHECK(asked == 2);
}

TEST_CASE_FIXTURE(
    Fixture, "an agent that is silent is not waited for, nor one asked about what has no socket") {
  reports.add(denial(1, IPPROTO_ICMP), [this] { ++asked; });
  CHECK(told.size() == 1);
  reports.add(denial(2), [this] { ++asked; });
  reports.add(denial(3), [this] { ++asked; });
  CHECK(run_until([this] { return told.size() == 3; }));
  CHECK(asked == 3);
}

TEST_CASE_FIXTURE(Fixture, "a flood waits in bounded memory, and none is lost") {
  for (std::uint32_t port = 1; port <= 1000; ++port) {
    reports.add(denial(port), [this] { ++asked; });
  }
  CHECK(told.size() == 1000 - DenialReports::kMaxWaiting);
  CHECK(run_until([this] { return told.size() == 1000; }));
  CHECK(asked == 1000);
}

TEST_CASE_FIXTURE(Fixture, "an agent that goes away leaves nobody waiting") {
  reports.add(denial(1), [this] { ++asked; });
  REQUIRE(run_until([this] { return !agent.connections.empty(); }));
  agent.connections.front().socket.reset();
  CHECK(run_until([this] { return told.size() == 1; }));
}

}  // namespace
}  // namespace msb::launcher
