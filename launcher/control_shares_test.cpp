// SPDX-License-Identifier: Apache-2.0
// Shares that are added and removed by the control socket.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <string>
#include <string_view>

#include "launcher/control_testing.hpp"
#include "protocol/host_frames.hpp"

namespace msb::launcher {
namespace {

using protocol::testing::frame_of;
using protocol::testing::text_of;

struct SharesFixture : testing::ControlFixture {
  void start() {
    obey();
    serve();
    server->running(1);
    one = client();
  }
  // Asks without waiting.
  void say(std::string_view method, const Json& parameters) {
    one.say(testing::request(++id, method, parameters));
  }
  [[nodiscard]] Json wanted(const std::string& guest = "/data") const {
    return {{"host", directory}, {"guest", guest}};
  }
  // That the agent was asked for this, and answers.
  void agent(std::span<const std::byte> request, const std::string& reply) {
    const std::string frame = text_of(request);
    CHECK(run_until([&] { return wire.hear().size() >= frame.size(); }));
    CHECK(wire.hear() == frame);
    wire.heard.clear();
    wire.say(std::exchange(greeting, "") + reply);
  }
  void agent_obeys(std::span<const std::byte> request) {
    agent(request, frame_of(MSB_DONE, msb_done{0}));
  }
  void agent_refuses(std::span<const std::byte> request) {
    agent(request, frame_of(MSB_REFUSED, msb_failure{MSB_STAGE_FILE, EBUSY}, "cannot: busy"));
  }
  void add(const std::string& guest = "/data") {
    say("add_share", wanted(guest));
    const std::string path = "shares/" + std::to_string(added++);
    agent_obeys(*protocol::encode_share(false, path, guest));
    CHECK(next(one).contains("result"));
  }
  Json shown() { return ask(one, "status").at("result").at("shares"); }

  testing::ControlClient one;
  std::string greeting = "OK 1\n";
  int added = 0;
};

TEST_CASE_FIXTURE(SharesFixture, "a share is given to the machine, and the guest mounts it") {
  start();
  testing::ControlClient other = client();
  CHECK(ask(other, "subscribe").contains("result"));
  say("add_share",
      {{"host", directory}, {"guest", "/a//b/"}, {"read_only", true}, {"cache", "always"}});
  agent_obeys(*protocol::encode_share(true, "shares/0", "/a/b"));
  CHECK(next(one).at("result") == Json::object());
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].kind == ControlKind::kAddShare);
  CHECK(asked[0].text == "ro 2 shares/0");
  REQUIRE(asked[0].descriptors.size() == 1);
  struct stat sent{};
  struct stat meant{};
  REQUIRE(::fstat(asked[0].descriptors[0].get(), &sent) == 0);
  REQUIRE(::stat(directory.c_str(), &meant) == 0);
  CHECK(sent.st_ino == meant.st_ino);
  CHECK((::fcntl(asked[0].descriptors[0].get(), F_GETFL) & O_PATH) != 0);
  CHECK(shown() ==
        Json::array(
            {{{"host", directory}, {"guest", "/a/b"}, {"read_only", true}, {"cache", "always"}}}));
  CHECK(next(other).at("params").at("event") == "share_added");

  CHECK(ask(one, "remove_share", {{"guest", "/a/b"}}).at("result") == Json::object());
  agent_obeys(*protocol::encode_unshare("/a/b"));
  CHECK(asked[1].kind == ControlKind::kRemoveShare);
  CHECK(asked[1].text == "shares/0");
  CHECK(shown() == Json::array());
  CHECK(next(other).at("params").at("event") == "share_removed");
}

TEST_CASE_FIXTURE(SharesFixture, "paths in the device are used once, and places again") {
  shares.push_back({{"/host", "/first", false, ShareCache::kAuto}, "shares/0"});
  added = 1;
  start();
  add();
  CHECK(ask(one, "remove_share", {{"guest", "/data"}}).contains("result"));
  agent_obeys(*protocol::encode_unshare("/data"));
  add();
  CHECK(shown().size() == 2);
  CHECK(asked.back().text == "rw 1 shares/2");
}

TEST_CASE_FIXTURE(SharesFixture, "what the guest does not mount is taken away again") {
  start();
  say("add_share", wanted());
  agent_refuses(*protocol::encode_share(false, "shares/0", "/data"));
  const Json refused = next(one);
  CHECK(testing::code_of(refused) == -32000);
  CHECK(testing::message_of(refused).find("busy") != std::string::npos);
  CHECK(asked.back().kind == ControlKind::kRemoveShare);
  CHECK(shown() == Json::array());
  added = 1;
  add();  // at the same place, by another path
}

TEST_CASE_FIXTURE(SharesFixture, "what the guest does not unmount is removed all the same") {
  start();
  testing::ControlClient other = client();
  CHECK(ask(other, "subscribe").contains("result"));
  add();
  CHECK(next(other).at("params").at("event") == "share_added");
  CHECK(ask(one, "remove_share", {{"guest", "/data"}}).contains("result"));
  CHECK(shown() == Json::array());
  CHECK(next(other).at("params").at("event") == "share_removed");
  agent_refuses(*protocol::encode_unshare("/data"));
  CHECK(next(other).at("params").at("event") == "share_not_unmounted");
  // The agent breaks its connection now, and there is no other.
  add("/next");
  CHECK(ask(one, "remove_share", {{"guest", "/next"}}).contains("result"));
  agent(*protocol::encode_unshare("/next"), "nonsense that is no frame at all");
  CHECK(next(other).at("params").at("event") == "share_added");
  CHECK(next(other).at("params").at("event") == "share_removed");
  CHECK(next(other).at("params").at("event") == "share_not_unmounted");
  CHECK(testing::message_of(ask(one, "add_share", wanted())) == "the agent does not answer");
  CHECK(asked.back().kind == ControlKind::kRemoveShare);
  CHECK(shown() == Json::array());
}

TEST_CASE_FIXTURE(SharesFixture, "a share below another has to be removed first") {
  start();
  add("/data");
  add("/data/inner");
  add("/database");
  CHECK(testing::message_of(ask(one, "remove_share", {{"guest", "/data"}})) ==
        "\"/data/inner\" is shared below \"/data\"; remove that first");
  CHECK(shown().size() == 3);
  CHECK(ask(one, "remove_share", {{"guest", "/data/inner"}}).contains("result"));
  CHECK(ask(one, "remove_share", {{"guest", "/data"}}).contains("result"));
  CHECK(shown().size() == 1);
}

TEST_CASE_FIXTURE(SharesFixture, "a share that the host holds up does not hold up anything else") {
  serve();
  server->running(1);
  one = client();
  machine = [&](const ControlMessage& message) {
    if (message.kind != ControlKind::kAddShare) {
      answer(ControlKind::kDone, message);
    }
  };
  say("add_share", wanted());
  testing::ControlClient other = client();
  CHECK(ask(other, "pause").contains("result"));
  CHECK(ask(other, "resume").contains("result"));
  CHECK(asked.size() == 3);
  const ControlMessage& held = asked[0];
  answer(ControlKind::kDone, held);
  agent_obeys(*protocol::encode_share(false, "shares/0", "/data"));
  CHECK(next(one).contains("result"));
  answer(ControlKind::kDone, held);  // a second time
  CHECK(run_until([&] { return machine_broke; }));
}

TEST_CASE_FIXTURE(SharesFixture, "what a guest neither mounts nor refuses can be removed") {
  start();
  testing::ControlClient other = client();
  say("add_share", wanted());
  CHECK(run_until([&] { return !wire.hear().empty(); }));
  CHECK(testing::message_of(ask(other, "add_share", wanted())).find("already") !=
        std::string::npos);
  other.say(testing::request(++id, "remove_share", {{"guest", "/data"}}));
  CHECK(run_until([&] { return asked.back().kind == ControlKind::kRemoveShare; }));
  // It answers after all.
  wire.say("OK 1\n" + frame_of(MSB_DONE, msb_done{0}) + frame_of(MSB_DONE, msb_done{0}));
  CHECK(testing::message_of(next(one)).find("removed before") != std::string::npos);
  CHECK(next(other).contains("result"));
  CHECK(shown() == Json::array());
}

TEST_CASE_FIXTURE(SharesFixture, "what the machine does not end is shared still") {
  start();
  add();
  machine = [&](const ControlMessage& message) {
    answer(ControlKind::kRefused, message, "not now");
  };
  CHECK(testing::message_of(ask(one, "remove_share", {{"guest", "/data"}})) == "not now");
  CHECK(shown().size() == 1);
  obey();
  CHECK(ask(one, "remove_share", {{"guest", "/data"}}).contains("result"));
  agent_obeys(*protocol::encode_unshare("/data"));
}

TEST_CASE_FIXTURE(SharesFixture, "what the machine refuses does not reach the guest") {
  serve();
  server->running(1);
  one = client();
  machine = [&](const ControlMessage& message) {
    answer(ControlKind::kRefused, message, "cannot share");
  };
  CHECK(testing::message_of(ask(one, "add_share", wanted())) == "cannot share");
  CHECK(wire.hear().empty());
  CHECK(shown() == Json::array());
}

TEST_CASE_FIXTURE(SharesFixture, "shares that cannot be are refused, and nobody is asked") {
  obey();
  serve();
  one = client();
  CHECK(testing::message_of(ask(one, "add_share", wanted())).find("not run yet") !=
        std::string::npos);
  server->running(1);
  struct Row {
    Json parameters;
    int code;
    const char* says;
  };
  for (const Row& row : {
           Row{{{"guest", "/data"}}, -32602, "host"},
           Row{{{"host", "relative"}, {"guest", "/data"}}, -32602, "absolute"},
           Row{{{"host", 5}, {"guest", "/data"}}, -32602, "text"},
           Row{{{"host", "/"}, {"guest", "work"}}, -32602, "guest"},
           Row{{{"host", "/"}, {"guest", "/a/../b"}}, -32602, "guest"},
           Row{{{"host", "/"}, {"guest", "/"}}, -32602, "guest"},
           Row{{{"host", "/"}, {"guest", "/w"}, {"read_only", 1}}, -32602, "true or false"},
           Row{{{"host", "/"}, {"guest", "/w"}, {"cache", "maybe"}}, -32602, "always"},
           Row{{{"host", "/"}, {"guest", "/w"}, {"mode", "ro"}}, -32602, "mode"},
           Row{{{"host", "/nowhere at all"}, {"guest", "/w"}}, -32000, "nowhere"},
           Row{{{"host", "/dev/null"}, {"guest", "/w"}}, -32000, "neither"},
       }) {
    const Json refused = ask(one, "add_share", row.parameters);
    CAPTURE(row.parameters.dump());
    CHECK(testing::code_of(refused) == row.code);
    CHECK(testing::message_of(refused).find(row.says) != std::string::npos);
  }
  CHECK(testing::code_of(ask(one, "remove_share", {{"guest", "/data"}})) == -32000);
  CHECK(testing::code_of(ask(one, "remove_share", Json::object())) == -32602);
  CHECK(asked.empty());
  add();
  const Json taken = ask(one, "add_share", wanted());
  CHECK(testing::message_of(taken).find("already") != std::string::npos);
  CHECK(ask(one, "pause").contains("result"));
  CHECK(testing::message_of(ask(one, "add_share", wanted("/b"))).find("paused") !=
        std::string::npos);
  CHECK(ask(one, "resume").contains("result"));
}

TEST_CASE_FIXTURE(SharesFixture, "a server that closes drops what the agent has not answered") {
  start();
  say("add_share", wanted());
  CHECK(run_until([&] { return !wire.hear().empty(); }));
  server->close();
  CHECK(run_until([&] { return wire.closed(); }));
}

}  // namespace
}  // namespace msb::launcher
