// SPDX-License-Identifier: Apache-2.0
#include "launcher/control_server.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "launcher/control_testing.hpp"

namespace msb::launcher {
namespace {

using testing::code_of;
using testing::ControlClient;
using testing::ControlFixture;
using testing::message_of;
using testing::notification;
using testing::request;

TEST_CASE_FIXTURE(ControlFixture, "the socket is this user's alone, and is gone when it closes") {
  serve();
  struct stat status{};
  REQUIRE(::lstat(path().c_str(), &status) == 0);
  CHECK(S_ISSOCK(status.st_mode));
  CHECK((status.st_mode & 07777) == 0600);
  ControlClient waiting = client();
  settle();
  server->close();
  CHECK(std::filesystem::is_empty(directory));
  CHECK(ended(waiting));
}

TEST_CASE_FIXTURE(ControlFixture, "a request without id is carried out and not answered") {
  obey();
  serve();
  ControlClient one = client();
  one.say(notification("pause") + notification("nothing") + notification("set_disk_size") +
          request(1, "status"));
  const Json line = next(one);
  CHECK(line.at("id") == 1);
  CHECK(line.at("result").at("state") == "paused");
  one.say(notification("resume"));
  one.socket.reset();
  CHECK(run_until([&] { return asked.size() == 2; }));
  check_serves();
}

TEST_CASE_FIXTURE(ControlFixture,
                  "the requests of one client are answered in order, beside others'") {
  serve();
  ControlClient one = client();
  one.say(request(1, "pause") + request(2, "status"));
  CHECK(run_until([&] { return asked.size() == 1; }));
  check_serves();
  CHECK_FALSE(one.next());
  answer(ControlKind::kDone, asked[0]);
  CHECK(next(one).at("id") == 1);
  CHECK(next(one).at("result").at("state") == "paused");
}

TEST_CASE_FIXTURE(ControlFixture, "what is no request is answered, and the client goes on") {
  serve();
  ControlClient one = client();
  struct Row {
    std::string line;
    int code;
  };
  for (const Row& row :
       {Row{"", -32700}, Row{"status", -32700}, Row{std::string("\0\xff\x1b", 3), -32700},
        Row{std::string(65'536, '['), -32700}, Row{std::string(65'536, 'x'), -32700},
        Row{R"({"jsonrpc":"2.0","id":NaN,"method":"status"})", -32700},
        Row{R"({"jsonrpc":"2.0","id":1e400,"method":"status"})", -32700},
        Row{R"([{"jsonrpc":"2.0","id":1,"method":"status"}])", -32600},
        Row{R"({"id":{},"method":"status"})", -32600}}) {
    CAPTURE(row.line.substr(0, 60));
    one.say(row.line + "\n");
    const Json line = next(one);
    CHECK(line.at("id").is_null());
    CHECK(code_of(line) == row.code);
    check_serves();
  }
  CHECK(ask(one, "status").contains("result"));
}

TEST_CASE_FIXTURE(ControlFixture, "a line that is too long is answered, and ends its client") {
  serve();
  ControlClient one = client();
  one.say(std::string(65'537, ' '));
  const Json line = next(one);
  CHECK(line.at("id").is_null());
  CHECK(code_of(line) == -32600);
  CHECK(message_of(line).find("65536") != std::string::npos);
  CHECK(ended(one));
  check_serves();
}

TEST_CASE_FIXTURE(ControlFixture, "half a line and its end are nothing") {
  serve();
  ControlClient one = client();
  one.say(R"({"jsonrpc":"2.0","id":1,"method":"pau)");
  SUBCASE("a hang-up") {
    one.socket.reset();
    settle();
  }
  SUBCASE("an end") {
    ::shutdown(one.socket.get(), SHUT_WR);
    CHECK(ended(one));
    CHECK(one.heard.empty());
  }
  CHECK(asked.empty());
  check_serves();
}

TEST_CASE_FIXTURE(ControlFixture, "who writes all its requests and their end gets all answers") {
  obey();
  serve();
  ControlClient one = client();
  one.say(request(1, "pause") + request(2, "resume") + request(3, "status"));
  ::shutdown(one.socket.get(), SHUT_WR);
  CHECK(ended(one));
  CHECK(one.next()->at("id") == 1);
  CHECK(one.next()->at("id") == 2);
  CHECK(one.next()->at("result").at("state") == "starting");
}

TEST_CASE_FIXTURE(ControlFixture, "the 17th client is told so, until one of the others goes") {
  serve();
  std::vector<ControlClient> clients;
  for (std::size_t i = 0; i < ControlServer::Limits{}.clients; ++i) {
    clients.push_back(client());
  }
  CHECK(ask(clients.back(), "status").contains("result"));
  ControlClient late = client();
  const Json line = next(late);
  CHECK(line.at("id").is_null());
  CHECK(code_of(line) == -32000);
  CHECK(ended(late));
  CHECK(ask(clients.front(), "status").contains("result"));
  clients.erase(clients.begin());
  settle();
  check_serves();
}

TEST_CASE_FIXTURE(ControlFixture,
                  "a subscriber that never reads is cut, and the others are served") {
  obey();
  serve({}, {.clients = 16, .waiting_bytes = 64 * 1024});
  ControlClient deaf = client();
  ask(deaf, "subscribe");
  ControlClient busy = client();
  std::string text;
  for (int i = 0; i < 50; ++i) {
    text += notification("pause") + notification("resume");
  }
  // Each round is about 9 KB of events.
  int rounds = 0;
  bool cut = false;
  while (!cut && ++rounds < 100) {
    busy.say(text);
    ask(busy, "status");
    // A write, because a read would make room.
    cut = ::send(deaf.socket.get(), " ", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0;
  }
  CHECK(cut);
  CHECK(rounds > 5);
  CHECK(ask(busy, "status").contains("result"));
  check_serves();
}

TEST_CASE_FIXTURE(ControlFixture,
                  "a client that vanishes while its request is under way harms nobody") {
  serve();
  {
    ControlClient one = client();
    one.say(request(1, "counters"));
    CHECK(run_until([&] { return asked.size() == 1; }));
  }
  settle();
  answer(ControlKind::kDone, asked[0], "{}");
  settle();
  CHECK_FALSE(machine_broke);
  check_serves();
}

TEST_CASE_FIXTURE(ControlFixture, "a machine that answers what nobody asked is found out") {
  machine = [&](const ControlMessage& message) {
    CHECK(send_control(pair.theirs.get(), ControlKind::kDone, message.value + 1));
  };
  serve();
  ControlClient one = client();
  const Json line = ask(one, "pause");
  CHECK(machine_broke);
  CHECK(code_of(line) == -32000);
  CHECK(message_of(line) == "the machine is gone");
  check_serves();
  CHECK(code_of(ask(one, "resume")) == -32000);
}

TEST_CASE_FIXTURE(ControlFixture, "closing while requests are under way leaves nothing behind") {
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         std::filesystem::directory_iterator());
  };
  const auto before = descriptors();
  {
    serve();
    std::vector<ControlClient> clients;
    for (int i = 0; i < 10; ++i) {
      clients.push_back(client());
      clients.back().say(request(1, "subscribe") + request(2, "counters") + request(3, "pause"));
    }
    CHECK(run_until([&] { return asked.size() == 1; }));
    settle();
    clients.resize(5);
    SUBCASE("the machine goes first") {
      requests->close();
      server->stopped(125, "");
      settle();
    }
    SUBCASE("the server goes first") {}
    server->close();
    for (ControlClient& each : clients) {
      CHECK(ended(each));
    }
    wire.loop->drain();
    server.reset();
  }
  CHECK(descriptors() == before);
}

}  // namespace
}  // namespace msb::launcher
