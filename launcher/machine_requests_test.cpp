// SPDX-License-Identifier: Apache-2.0
#include "launcher/machine_requests.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"

namespace msb::launcher {
namespace {

struct Fixture {
  Fixture() {
    auto made = make_control_pair();
    REQUIRE(made);
    pair = std::move(*made);
    requests.emplace(pair.ours.get());
  }
  // What an answer says, "!" before it when it is an error.
  MachineRequests::Done note() {
    return [this](const Result<std::string>& answer) {
      answers.push_back(answer ? *answer : "!" + answer.error().message);
    };
  }
  [[nodiscard]] ControlMessage asked() const {
    auto message = receive_control(pair.theirs.get());
    REQUIRE(message);
    return std::move(*message);
  }
  [[nodiscard]] bool nothing_asked() const {
    const auto message = receive_control(pair.theirs.get());
    return !message && message.error().code == EAGAIN;
  }
  [[nodiscard]] Result<void> answer(ControlKind kind, std::uint32_t tag, std::string text = {}) {
    return requests->on_answer({kind, tag, std::move(text), {}});
  }

  ControlPair pair;
  std::optional<MachineRequests> requests;
  std::vector<std::string> answers;
};

TEST_CASE_FIXTURE(Fixture, "requests go one after another, and each gets its own answer") {
  requests->send(ControlKind::kCounters, {}, note());
  requests->send(ControlKind::kResizeDisk, "0 1024", note());
  const ControlMessage first = asked();
  CHECK(first.kind == ControlKind::kCounters);
  CHECK(nothing_asked());
  CHECK(answer(ControlKind::kDone, first.value, "{}"));
  const ControlMessage second = asked();
  CHECK(second.kind == ControlKind::kResizeDisk);
  CHECK(second.text == "0 1024");
  CHECK(second.value != first.value);
  CHECK(answer(ControlKind::kRefused, second.value, "no\nway\x1b"));
  CHECK(answers == std::vector<std::string>{"{}", "!no?way?"});
}

TEST_CASE_FIXTURE(Fixture, "an answer may lead to the next request") {
  requests->send(ControlKind::kPause, {}, [&](const Result<std::string>&) {
    requests->send(ControlKind::kResume, {}, note());
  });
  requests->send(ControlKind::kCounters, {}, note());
  CHECK(answer(ControlKind::kDone, asked().value));
  const ControlMessage second = asked();
  CHECK(second.kind == ControlKind::kCounters);
  CHECK(answer(ControlKind::kDone, second.value, "2"));
  CHECK(answer(ControlKind::kDone, asked().value, "3"));
  CHECK(answers == std::vector<std::string>{"2", "3"});
}

TEST_CASE_FIXTURE(Fixture, "an answer to nothing is the machine's error, and changes nothing") {
  CHECK_FALSE(answer(ControlKind::kDone, 0));
  requests->send(ControlKind::kPause, {}, note());
  const std::uint32_t tag = asked().value;
  SUBCASE("another tag") {
    CHECK_FALSE(answer(ControlKind::kDone, tag + 1));
  }
  SUBCASE("another kind") {
    CHECK_FALSE(answer(ControlKind::kRunning, tag));
  }
  SUBCASE("descriptors") {
    ControlMessage message{ControlKind::kDone, tag, {}, {}};
    message.descriptors.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    CHECK_FALSE(requests->on_answer(message));
  }
  CHECK(answers.empty());
  CHECK(answer(ControlKind::kDone, tag, "late"));
  CHECK_FALSE(answer(ControlKind::kDone, tag, "twice"));
  CHECK(answers == std::vector<std::string>{"late"});
}

TEST_CASE_FIXTURE(Fixture, "a machine that is gone fails what waits and what comes") {
  requests->send(ControlKind::kPause, {}, note());
  requests->send(ControlKind::kResume, {}, note());
  SUBCASE("as somebody else found out") {
    requests->close();
  }
  SUBCASE("as the next request finds out") {
    const std::uint32_t tag = asked().value;
    pair.theirs.reset();
    CHECK(answer(ControlKind::kDone, tag));
    CHECK(answers.front().empty());
    answers.front() = "!the machine is gone";
  }
  requests->send(ControlKind::kCounters, {}, note());
  CHECK(answers == std::vector<std::string>(3, "!the machine is gone"));
}

TEST_CASE_FIXTURE(Fixture, "requests beyond the bound are refused, and those within are answered") {
  for (std::size_t i = 0; i < MachineRequests::kMaxRequests; ++i) {
    requests->send(ControlKind::kPause, {}, note());
  }
  CHECK(answers.empty());
  requests->send(ControlKind::kPause, {}, note());
  REQUIRE(answers.size() == 1);
  CHECK(answers.front().find("ask again later") != std::string::npos);
  for (std::size_t i = 0; i < MachineRequests::kMaxRequests; ++i) {
    REQUIRE(answer(ControlKind::kDone, asked().value));
  }
  CHECK(answers.size() == MachineRequests::kMaxRequests + 1);
  CHECK(nothing_asked());
}

TEST_CASE_FIXTURE(Fixture, "a machine that reads nothing keeps nobody waiting") {
  // Whatever fills the socket: connections that it was asked for.
  const std::string filler(4096, 'x');
  while (::send(pair.ours.get(), filler.data(), filler.size(), MSG_NOSIGNAL) > 0) {
  }
  requests->send(ControlKind::kPause, {}, note());
  REQUIRE(answers.size() == 1);
  CHECK(answers.front().find("does not read") != std::string::npos);
  while (receive_control(pair.theirs.get())) {
  }
  requests->send(ControlKind::kPause, {}, note());
  CHECK(answer(ControlKind::kDone, asked().value, "now"));
  CHECK(answers.back() == "now");
}

}  // namespace
}  // namespace msb::launcher
