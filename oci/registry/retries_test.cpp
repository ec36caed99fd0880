// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/retries.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace msb::oci {
namespace {

using namespace std::chrono_literals;

Failure failure(Failure::Kind kind) {
  return Failure{Error{"it broke", 0}, kind};
}

}  // namespace

TEST_CASE("what may pass is tried six times, without a connection three times, else once") {
  struct Case {
    Failure::Kind kind;
    int waits;
  };
  for (const Case& expected :
       {Case{Failure::Kind::kFinal, 0}, Case{Failure::Kind::kUnreachable, 2},
        Case{Failure::Kind::kNoTls, 2}, Case{Failure::Kind::kTransient, 5}}) {
    std::vector<std::string> sentences;
    const RetryPolicy policy{.first_delay = 0ms,
                             .notice = [&](const std::string& s) { sentences.push_back(s); },
                             .stop = {}};
    Retries retries(policy);
    int waits = 0;
    while (retries.wait_after(failure(expected.kind))) {
      ++waits;
    }
    CHECK(waits == expected.waits);
    REQUIRE(sentences.size() == static_cast<std::size_t>(waits));
    if (!sentences.empty()) {
      CHECK(sentences.front() == "retrying in 0 s: it broke");
    }
  }
}

TEST_CASE("progress begins the count anew, but not without end") {
  const RetryPolicy policy{.first_delay = 0ms, .notice = {}, .stop = {}};
  Retries retries(policy);
  int waits = 0;
  while (waits < 10000 && retries.wait_after(failure(Failure::Kind::kTransient))) {
    ++waits;
    retries.made_progress();
  }
  CHECK(waits == 199);
}

TEST_CASE("who is to come back in more than a minute is told when") {
  const RetryPolicy policy{.first_delay = 0ms, .notice = {}, .stop = {}};
  struct Case {
    std::chrono::seconds after;
    std::string_view says;
  };
  for (const Case& expected : {Case{61s, "61 s"}, Case{15min, "15 minutes"}, Case{5h, "5 hours"}}) {
    Retries retries(policy);
    Failure busy = failure(Failure::Kind::kTransient);
    busy.retry_after = expected.after;
    const auto waited = retries.wait_after(busy);
    REQUIRE_FALSE(waited);
    CHECK(waited.error().message == "it broke; come back in " + std::string(expected.says));
  }
}

TEST_CASE("waiting ends when a stop is requested") {
  // On the heap: g++ 12 takes one on the stack for uninitialized.
  const auto source = std::make_unique<std::stop_source>();
  // The notice comes right before the wait, which is long.
  const RetryPolicy policy{.first_delay = 1h,
                           .notice = [&](const std::string&) { source->request_stop(); },
                           .stop = source->get_token()};
  Retries retries(policy);
  const auto waited = retries.wait_after(failure(Failure::Kind::kTransient));
  REQUIRE_FALSE(waited);
  CHECK(waited.error().message.find("cancelled") != std::string::npos);
}

}  // namespace msb::oci
