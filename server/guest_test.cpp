// SPDX-License-Identifier: Apache-2.0
#include "server/guest.hpp"

#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace msb::server {
namespace {

using Variables = std::vector<std::string>;

TEST_CASE("a variable takes the place of the one of its name, and of no other") {
  const Variables own = {"PATH=/bin", "PATHS=/a", "HOME=/root"};
  CHECK(with_variables(own, {"PATH=/usr/bin", "NEW=1"}) ==
        Variables{"PATHS=/a", "HOME=/root", "PATH=/usr/bin", "NEW=1"});
  CHECK(with_variables(own, {"HOME=a", "HOME=b=c"}) ==
        Variables{"PATH=/bin", "PATHS=/a", "HOME=b=c"});
  CHECK(with_variables(own, {}) == own);
}

TEST_CASE("a variable without a value leaves those of other names alone") {
  CHECK(with_variables({"PATH=/bin", "HOME=/root"}, {"HOME"}) == Variables{"PATH=/bin", "HOME"});
}

TEST_CASE("what the sandbox's own system refuses is not what a key or the operator does") {
  const auto word = [](int code) {
    return info(problem_of({MSB_STAGE_REQUEST, {"it was refused", code}}).reason).word;
  };
  CHECK(word(EACCES) == "denied_in_sandbox");
  CHECK(word(EPERM) == "denied_in_sandbox");
  CHECK(word(EROFS) == "denied_in_sandbox");
  CHECK(word(ENOENT) == "not_found");
  CHECK(word(EIO) == "failed");
}

constexpr std::chrono::milliseconds kSoon{1};
constexpr std::chrono::seconds kLater{20};

// To its end, or for as long as a test may take.
void run(Async<> work) {
  asio::io_context io;
  bool done = false;
  asio::co_spawn(io, std::move(work), [&done](const std::exception_ptr& error) {
    CHECK_FALSE(error);
    done = true;
  });
  io.run_for(kLater);
  CHECK(done);
}

TEST_CASE("an agent that says nothing is waited for as long as is said") {
  const auto work = []() -> Async<> {
    AgentAnswer<int> answer;
    const auto taken = co_await answer.take(Signal::Clock::now() + kSoon);
    REQUIRE_FALSE(taken);
    CHECK(taken.error().reason == Reason::kTimeout);
    std::function<bool()> never = [] { return false; };
    const auto waited = co_await answer.wait(std::move(never), Signal::Clock::now() + kSoon);
    REQUIRE_FALSE(waited);
    CHECK(waited.error().reason == Reason::kTimeout);
  };
  run(work());
}

TEST_CASE("a sign that an agent goes on ends the wait for it, and so does its answer") {
  const auto work = []() -> Async<> {
    AgentAnswer<int> answer;
    bool goes_on = false;
    std::function<bool()> sign = [&goes_on] { return goes_on; };
    const auto executor = co_await asio::this_coro::executor;
    asio::post(executor, [&answer, &goes_on] {
      goes_on = true;
      answer.changed.notify();
    });
    const auto waited = co_await answer.wait(sign, Signal::Clock::now() + kLater);
    CHECK(waited);
    goes_on = false;
    asio::post(executor, [done = answer.done()] { done(7); });
    const auto ended = co_await answer.wait(sign, Signal::Clock::now() + kLater);
    CHECK(ended);
    const auto taken = co_await answer.take();
    REQUIRE(taken);
    CHECK(*taken == 7);
  };
  run(work());
}

}  // namespace
}  // namespace msb::server
