// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/relay.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <span>
#include <string>
#include <utility>

#include "launcher/network/testing.hpp"

namespace msb::launcher {
namespace {

using testing::Peer;
using testing::tcp_pair;
using testing::unix_pair;

struct Fixture {
  ~Fixture() {
    relays.close();
    wire.loop->drain();
  }
  void join(std::pair<Fd, Peer> left, std::pair<Fd, Peer> right) {
    one = std::move(left.second);
    other = std::move(right.second);
    relays.add(std::move(left.first), std::move(right.first));
  }
  bool run_until(const std::function<bool()>& condition) const {
    return testing::run_until(wire, condition);
  }

  protocol::testing::Wire wire;
  int ended = 0;
  Relays relays{*wire.loop, 2, [this] { ++ended; }, 20'000'000};
  Peer one;
  Peer other;
};

TEST_CASE_FIXTURE(Fixture, "each side gets the other's bytes, and its end behind them") {
  SUBCASE("TCP and Unix") {
    join(tcp_pair(), unix_pair());
  }
  SUBCASE("Unix and TCP") {
    join(unix_pair(), tcp_pair());
  }
  SUBCASE("TCP and TCP") {
    join(tcp_pair(), tcp_pair());
  }
  one.say("question");
  one.end();
  CHECK(run_until([&] { return other.has_ended(); }));
  CHECK(other.heard == "question");
  // The other direction goes on.
  CHECK(relays.count() == 1);
  other.say("answer");
  CHECK(run_until([&] { return one.hear() == "answer"; }));
  other.end();
  CHECK(run_until([&] { return one.has_ended(); }));
  CHECK(run_until([&] { return ended == 1; }));
  CHECK(one.code == 0);
  CHECK(relays.count() == 0);
}

TEST_CASE_FIXTURE(Fixture, "a side that reads slowly slows down the other, and loses nothing") {
  join(tcp_pair(), unix_pair());
  std::string all;
  for (int i = 0; all.size() < 16'000'000; ++i) {
    all += std::to_string(i);
  }
  std::size_t said = 0;
  // Until nothing has moved for a while: all buffers between are full.
  int still = 0;
  CHECK(run_until([&] {
    const std::size_t more = one.say_some(std::string_view(all).substr(said));
    said += more;
    still = more == 0 ? still + 1 : 0;
    return still > 50;
  }));
  CHECK(said < all.size());
  CHECK(run_until([&] {
    said += one.say_some(std::string_view(all).substr(said));
    return other.hear().size() == all.size();
  }));
  CHECK(other.heard == all);
}

TEST_CASE_FIXTURE(Fixture, "a reset of one side is one of the other") {
  join(tcp_pair(), tcp_pair());
  reset_at_close(one.socket.get());
  one.socket.reset();
  CHECK(run_until([&] { return other.was_reset(); }));
  CHECK(run_until([&] { return ended == 1; }));
}

TEST_CASE_FIXTURE(Fixture, "a side that has ended its half and is then gone ends both") {
  SUBCASE("by a reset of TCP") {
    join(tcp_pair(), unix_pair());
    reset_at_close(one.socket.get());
  }
  SUBCASE("by the close of a Unix socket") {
    join(unix_pair(), tcp_pair());
  }
  one.end();
  CHECK(run_until([&] { return other.has_ended(); }));
  int rounds = 0;
  CHECK(run_until([&] { return ++rounds > 20; }));
  CHECK(relays.count() == 1);
  one.socket.reset();
  CHECK(run_until([&] { return ended == 1; }));
}

TEST_CASE_FIXTURE(Fixture, "a filter lets pass what it says, whole, and ends the rest") {
  auto left = tcp_pair();
  auto right = unix_pair();
  one = std::move(left.second);
  other = std::move(right.second);
  // Whole words, but for "no".
  relays.add(std::move(left.first), std::move(right.first),
             [](std::span<const std::byte> bytes) -> std::optional<std::size_t> {
               const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
               return text.find("no ") == text.npos ? std::optional(text.rfind(' ') + 1)
                                                    : std::nullopt;
             });
  one.say("three whole words and a ha");
  CHECK(run_until([&] { return other.hear() == "three whole words and a "; }));
  one.say("l");
  one.say("f and nothing n");
  CHECK(run_until([&] { return other.hear() == "three whole words and a half and nothing "; }));
  other.say("no answer is filtered ");
  CHECK(run_until([&] { return one.hear() == "no answer is filtered "; }));
  one.say("o more");
  CHECK(run_until([&] { return one.was_reset() && other.has_ended(); }));
  CHECK(other.heard == "three whole words and a half and nothing ");
}

TEST_CASE_FIXTURE(Fixture, "a reset while the other side does not read ends both") {
  join(tcp_pair(), unix_pair());
  const std::string much(1'000'000, 'x');
  int still = 0;
  CHECK(run_until([&] { return (still = other.say_some(much) == 0 ? still + 1 : 0) > 50; }));
  reset_at_close(one.socket.get());
  one.socket.reset();
  CHECK(run_until([&] { return ended == 1; }));
  // Broken, or ended: there is no reset of Unix sockets but for what was not read.
  CHECK(run_until([&] {
    other.hear();
    return other.ended || other.code != 0;
  }));
}

TEST_CASE_FIXTURE(Fixture, "a guest that closed its socket ends the client's connection") {
  join(tcp_pair(), unix_pair());
  SUBCASE("with its last words") {
    other.say("last words");
    other.socket.reset();
    CHECK(run_until([&] { return one.has_ended(); }));
    CHECK(one.heard == "last words");
  }
  SUBCASE("with bytes that it has not read") {
    one.say("nobody reads this");
    int rounds = 0;
    CHECK(run_until([&] { return ++rounds > 20; }));
    other.socket.reset();
    CHECK(run_until([&] { return one.was_reset(); }));
  }
  CHECK(run_until([&] { return ended == 1; }));
}

TEST_CASE_FIXTURE(Fixture, "a guest that closes while much is sent resets the client") {
  join(tcp_pair(), unix_pair());
  const std::string much(1'000'000, 'x');
  int still = 0;
  CHECK(run_until([&] { return (still = one.say_some(much) == 0 ? still + 1 : 0) > 50; }));
  other.socket.reset();
  CHECK(run_until([&] { return one.was_reset(); }));
  CHECK(run_until([&] { return ended == 1; }));
}

TEST_CASE_FIXTURE(Fixture, "no more than so many are joined, and the rest is reset") {
  join(tcp_pair(), unix_pair());
  Peer first = std::move(one);
  const Peer first_guest = std::move(other);
  join(tcp_pair(), unix_pair());
  const Peer second = std::move(one);
  const Peer second_guest = std::move(other);
  join(tcp_pair(), unix_pair());
  CHECK(run_until([&] { return one.was_reset(); }));
  CHECK(other.has_ended());
  CHECK(relays.count() == 2);
  first_guest.say("still here");
  CHECK(run_until([&] { return first.hear() == "still here"; }));
}

TEST_CASE_FIXTURE(Fixture, "closing resets all, and says nothing") {
  join(tcp_pair(), unix_pair());
  other.say("half of ");
  CHECK(run_until([&] { return one.hear() == "half of "; }));
  relays.close();
  CHECK(run_until([&] { return one.was_reset(); }));
  CHECK(run_until([&] { return other.has_ended(); }));
  CHECK(ended == 0);
  join(tcp_pair(), unix_pair());
  CHECK(run_until([&] { return one.was_reset(); }));
}

}  // namespace
}  // namespace msb::launcher
