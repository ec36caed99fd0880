// SPDX-License-Identifier: Apache-2.0
#include "launcher/line_client.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "protocol/testing/wire.hpp"

namespace msb::launcher {
namespace {

// The guest's side of the wire is the client's.
struct Fixture {
  Fixture() {
    client = std::make_shared<LineClient>(
        *wire.loop, std::move(wire.host),
        LineClient::Owner{.line =
                              [this](LineClient& from, std::string line) {
                                lines.push_back(std::move(line));
                                from.send(answer);
                                if (finishes) {
                                  from.finish();
                                }
                              },
                          .too_long = [this](LineClient&) { ++too_long; },
                          .left = [this](const LineClient&) { ++left; }});
    client->start();
  }
  ~Fixture() {
    client->leave();
    wire.loop->drain();
    const std::weak_ptr<LineClient> weak = client;
    client.reset();
    CHECK(weak.expired());
  }
  // All that the loop has to do, it does.
  void settle() const {
    int rounds = 0;
    CHECK(wire.run_until([&] { return ++rounds > 20; }));
  }

  protocol::testing::Wire wire;
  std::shared_ptr<LineClient> client;
  std::string answer;
  bool finishes = true;
  std::vector<std::string> lines;
  int too_long = 0;
  int left = 0;
};

TEST_CASE_FIXTURE(Fixture, "lines come one by one, however they were sent") {
  wire.say("a\n\nbc");
  CHECK(wire.run_until([&] { return lines.size() == 2; }));
  wire.say("d\n");
  CHECK(wire.run_until([&] { return lines.size() == 3; }));
  CHECK(lines == std::vector<std::string>{"a", "", "bcd"});
}

TEST_CASE_FIXTURE(Fixture, "the next line waits until the one before is finished") {
  finishes = false;
  wire.say("a\nb\n");
  settle();
  CHECK(lines == std::vector<std::string>{"a"});
  client->finish();
  CHECK(lines == std::vector<std::string>{"a", "b"});
}

TEST_CASE_FIXTURE(Fixture, "many lines are many turns of the loop, and all come") {
  std::string text;
  for (int i = 0; i < 30'000; ++i) {
    text += "x\n";
  }
  wire.say(text);
  CHECK(wire.run_until([&] { return lines.size() == 30'000; }));
}

TEST_CASE_FIXTURE(Fixture, "a line may be as long as the bound, and no longer") {
  const std::string longest(LineClient::kMaxLine, 'x');
  wire.say(longest + "\n");
  CHECK(wire.run_until([&] { return lines.size() == 1; }));
  CHECK(lines.front() == longest);
  CHECK(too_long == 0);
  wire.say("y\n" + longest + "x\n");
  CHECK(wire.run_until([&] { return left == 1; }));
  CHECK(lines.size() == 2);
  CHECK(too_long == 1);
}

TEST_CASE_FIXTURE(Fixture, "who has said everything gets its answers, and is closed then") {
  finishes = false;
  answer = "yes\n";
  wire.say("a\nb\nhalf");
  ::shutdown(wire.guest.get(), SHUT_WR);
  settle();
  CHECK(left == 0);
  client->finish();
  client->finish();
  CHECK(left == 1);
  CHECK(wire.closed());
  CHECK(wire.heard == "yes\nyes\n");
  CHECK(lines == std::vector<std::string>{"a", "b"});
}

TEST_CASE_FIXTURE(Fixture, "who vanishes is noticed, at once or by its answer") {
  SUBCASE("between lines") {
    wire.guest.reset();
    CHECK(wire.run_until([&] { return left == 1; }));
  }
  SUBCASE("while a line is under way") {
    finishes = false;
    wire.say("a\n");
    CHECK(wire.run_until([&] { return lines.size() == 1; }));
    wire.guest.reset();
    settle();
    client->send("yes\n");
    CHECK(left == 1);
    client->finish();
  }
  CHECK(left == 1);
}

TEST_CASE_FIXTURE(Fixture, "the lines of a client that does not read its answers wait") {
  answer = std::string(20'000, 'y');
  std::string text;
  for (int i = 0; i < 1000; ++i) {
    text += "x\n";
  }
  wire.say(text);
  settle();
  // What the socket takes, and a little beyond.
  CHECK(lines.size() < 100);
  CHECK(left == 0);
  CHECK(wire.run_until([&] {
    wire.hear();
    return lines.size() == 1000 && wire.heard.size() == 1000 * answer.size();
  }));
}

TEST_CASE_FIXTURE(Fixture, "a client that reads nothing is closed when too much waits for it") {
  const std::string event(1000, 'e');
  std::size_t sent = 0;
  while (left == 0 && sent < 100 * LineClient::kMaxWaiting) {
    client->send(event);
    sent += event.size();
  }
  CHECK(left == 1);
  CHECK(sent > LineClient::kMaxWaiting);
  CHECK(sent < 8 * LineClient::kMaxWaiting);
  client->send("more");
  CHECK(wire.run_until([&] { return wire.closed(); }));
}

TEST_CASE_FIXTURE(Fixture, "what waits arrives when the client reads") {
  std::string all;
  while (all.size() < LineClient::kMaxWaiting) {
    const std::string event(1000, static_cast<char>('a' + all.size() % 26));
    client->send(event);
    all += event;
  }
  CHECK(wire.run_until([&] { return wire.hear().size() >= all.size(); }));
  CHECK(wire.heard == all);
  CHECK(left == 0);
}

}  // namespace
}  // namespace msb::launcher
