// SPDX-License-Identifier: Apache-2.0
#include "launcher/control_methods.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/machine_counters.hpp"
#include "launcher/control_testing.hpp"

namespace msb::launcher {
namespace {

using testing::code_of;
using testing::ControlClient;
using testing::ControlFixture;
using testing::message_of;
using testing::request;

TEST_CASE_FIXTURE(ControlFixture, "the status follows what becomes of the sandbox") {
  obey();
  std::vector<RunningDisk> disks;
  disks.push_back(disk("a", 1024));
  disks.push_back(disk("b", 512, true));
  serve(std::move(disks));
  ControlClient one = client();
  const Json status = ask(one, "status").at("result");
  CHECK(status.at("uptime_ms").get<std::int64_t>() >= 0);
  CHECK(status.size() == 19);
  CHECK(status.at("state") == "starting");
  CHECK(status.at("memory_mib") == 512);
  CHECK(status.at("cpus") == 2);
  CHECK(status.at("disks") == Json::parse(R"([{"disk":0,"size":1024,"read_only":false},
                                              {"disk":1,"size":512,"read_only":true}])"));
  const auto state = [&] { return ask(one, "status").at("result").at("state"); };
  server->running(1);
  CHECK(state() == "running");
  CHECK(ask(one, "pause").at("result") == Json::object());
  CHECK(state() == "paused");
  CHECK(ask(one, "resume").at("result") == Json::object());
  CHECK(state() == "running");
  server->stopping();
  server->running(1);
  CHECK(state() == "stopping");
  server->stopped(0, "");
  CHECK(state() == "stopping");
}

TEST_CASE_FIXTURE(ControlFixture, "the status says what was started, and what it became") {
  serve();
  ControlClient one = client();
  Json status = ask(one, "status").at("result");
  CHECK(status.at("process").is_null());
  CHECK(status.at("command") == Json::array());
  CHECK(status.at("pid") == ::getpid());
  CHECK(status.at("background") == false);
  server->running(7);
  server->in_background();
  status = ask(one, "status").at("result");
  CHECK(status.at("process") == 7);
  CHECK(status.at("background") == true);
}

TEST_CASE_FIXTURE(ControlFixture, "stop and kill are answered, and carried out") {
  serve();
  std::vector<StopWords> stops;
  int kills = 0;
  server->obey(
      {.stop = [&](const StopWords& words) { stops.push_back(words); }, .kill = [&] { ++kills; }});
  ControlClient one = client();
  CHECK(ask(one, "stop").at("result") == Json::object());
  CHECK(ask(one, "stop", {{"timeout_s", 3}, {"signal", "INT"}}).at("result") == Json::object());
  CHECK(ask(one, "kill").at("result") == Json::object());
  REQUIRE(stops.size() == 2);
  CHECK_FALSE(stops[0].signal);
  CHECK_FALSE(stops[0].grace_ms);
  CHECK(stops[1].signal == 2U);
  CHECK(stops[1].grace_ms == 3000U);
  CHECK(kills == 1);
  for (const Json& wrong : {Json{{"timeout_s", 601}}, Json{{"timeout_s", "1"}},
                            Json{{"signal", "NONE"}}, Json{{"signal", 15}}, Json{{"now", true}}}) {
    CHECK(code_of(ask(one, "stop", wrong)) == -32602);
  }
  CHECK(stops.size() == 2);
}

TEST_CASE_FIXTURE(ControlFixture, "pause and resume ask the machine, and may be called again") {
  obey();
  serve();
  ControlClient one = client();
  for (const char* method : {"pause", "pause", "resume", "resume"}) {
    CHECK(ask(one, method).at("result") == Json::object());
  }
  std::vector<ControlKind> kinds;
  std::ranges::transform(asked, std::back_inserter(kinds), &ControlMessage::kind);
  CHECK(kinds == std::vector{ControlKind::kPause, ControlKind::kPause, ControlKind::kResume,
                             ControlKind::kResume});
}

TEST_CASE_FIXTURE(ControlFixture, "counters are the machine's") {
  MachineCounters counters;
  counters.exits = 77;
  counters.devices = {{"fs", 1, 0, 0, 0, 0, 0, {{0x50, 2, 3}}}};
  machine = [&](const ControlMessage& message) {
    answer(ControlKind::kDone, message, counters.to_json());
  };
  serve();
  ControlClient one = client();
  const Json shown = ask(one, "counters").at("result");
  CHECK(shown.at("exits") == 77);
  CHECK(shown.at("devices").at(0).at("registers").at(0).at("name") == "QueueNotify");
}

TEST_CASE_FIXTURE(ControlFixture, "a disk grows, and the machine is told") {
  obey();
  std::vector<RunningDisk> disks;
  disks.push_back(disk("a", 512));
  disks.push_back(disk("b", 1024));
  serve(std::move(disks));
  ControlClient one = client();
  CHECK(ask(one, "set_disk_size", {{"disk", 1}, {"size", 4096}}).at("result") == Json::object());
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].kind == ControlKind::kResizeDisk);
  CHECK(asked[0].text == "1 4096");
  CHECK(std::filesystem::file_size(directory + "/b") == 4096);
  CHECK(std::filesystem::file_size(directory + "/a") == 512);
  CHECK(ask(one, "status").at("result").at("disks").at(1).at("size") == 4096);
}

TEST_CASE_FIXTURE(ControlFixture, "a disk that the machine does not resize can be resized later") {
  machine = [&](const ControlMessage& message) {
    answer(ControlKind::kRefused, message, "the disk is busy");
  };
  std::vector<RunningDisk> disks;
  disks.push_back(disk("a", 512));
  serve(std::move(disks));
  ControlClient one = client();
  const Json refused = ask(one, "set_disk_size", {{"disk", 0}, {"size", 1024}});
  CHECK(code_of(refused) == -32000);
  CHECK(message_of(refused) == "the disk is busy");
  CHECK(ask(one, "status").at("result").at("disks").at(0).at("size") == 512);
  obey();
  CHECK(ask(one, "set_disk_size", {{"disk", 0}, {"size", 1024}}).contains("result"));
  CHECK(ask(one, "status").at("result").at("disks").at(0).at("size") == 1024);
}

TEST_CASE_FIXTURE(ControlFixture,
                  "what a disk cannot become is refused, and the machine not asked") {
  std::vector<RunningDisk> disks;
  disks.push_back(disk("a", 1024));
  disks.push_back(disk("b", 1024, true));
  serve(std::move(disks));
  ControlClient one = client();
  struct Row {
    const char* parameters;
    int code;
    const char* says;
  };
  for (const Row& row : {
           Row{R"({"disk":0,"size":512})", -32000, "cut"},
           Row{R"({"disk":0,"size":1025})", -32000, "512"},
           Row{R"({"disk":0,"size":18446744073709551104})", -32000, "more than"},
           Row{R"({"disk":0})", -32000, "has to be given"},
           Row{R"({"disk":1,"size":2048})", -32000, "read-only"},
           Row{R"({"disk":2,"size":2048})", -32000, "no disk 2"},
           Row{R"({"disk":18446744073709551615,"size":2048})", -32000, "no disk"},
           Row{R"({})", -32602, "\"disk\" is missing"},
           Row{R"({"size":2048})", -32602, "\"disk\" is missing"},
           Row{R"({"disk":"0","size":2048})", -32602, "\"disk\""},
           Row{R"({"disk":-1,"size":2048})", -32602, "\"disk\""},
           Row{R"({"disk":0,"size":2048.0})", -32602, "\"size\""},
           Row{R"({"disk":0,"size":1e99})", -32602, "\"size\""},
           Row{R"({"disk":0,"size":null})", -32602, "\"size\""},
           Row{R"({"disk":0,"size":2048,"force":true})", -32602, "\"force\""},
       }) {
    CAPTURE(row.parameters);
    const Json line = ask(one, "set_disk_size", Json::parse(row.parameters));
    CHECK(code_of(line) == row.code);
    CHECK(message_of(line).find(row.says) != std::string::npos);
  }
  CHECK(asked.empty());
  CHECK(std::filesystem::file_size(directory + "/a") == 1024);
}

TEST_CASE_FIXTURE(ControlFixture,
                  "the guest is asked for as much memory as it has, and for no more") {
  obey();
  serve();
  ControlClient one = client();
  CHECK(ask(one, "set_balloon", {{"mib", 100}}).at("result") == Json::object());
  CHECK(ask(one, "set_balloon", {{"mib", 0}}).at("result") == Json::object());
  REQUIRE(asked.size() == 2);
  CHECK(asked[0].kind == ControlKind::kSetBalloon);
  CHECK(asked[0].text == "100");
  CHECK(asked[1].text == "0");
  CHECK(code_of(ask(one, "set_balloon", {{"mib", 1 << 30}})) == -32000);
  CHECK(code_of(ask(one, "set_balloon", Json::object())) == -32602);
  CHECK(code_of(ask(one, "set_balloon", {{"mib", -1}})) == -32602);
  CHECK(code_of(ask(one, "set_balloon", {{"mib", "1"}})) == -32602);
  CHECK(asked.size() == 2);
}

TEST_CASE_FIXTURE(ControlFixture, "unknown methods and parameters are refused by name") {
  serve();
  ControlClient one = client();
  const Json method = ask(one, "halt");
  CHECK(code_of(method) == -32601);
  CHECK(message_of(method) ==
        "there is no method \"halt\"; there are status, counters, pause, resume, set_disk_size, "
        "set_balloon, add_share, remove_share, subscribe, stop, kill");
  for (const char* name : {"status", "counters", "pause", "resume", "subscribe"}) {
    const Json parameter = ask(one, name, {{"verbose", true}});
    CHECK(code_of(parameter) == -32602);
    CHECK(message_of(parameter).find("\"verbose\"") != std::string::npos);
  }
  CHECK(asked.empty());
}

TEST_CASE_FIXTURE(ControlFixture, "a subscriber is told what happens, and nobody else is") {
  obey();
  std::vector<RunningDisk> disks;
  disks.push_back(disk("a", 512));
  serve(std::move(disks));
  ControlClient listener = client();
  ControlClient other = client();
  CHECK(ask(listener, "subscribe").at("result") == Json::object());
  server->running(1);
  for (const char* method : {"pause", "pause", "resume", "resume"}) {
    ask(other, method);
  }
  ask(other, "set_disk_size", {{"disk", 0}, {"size", 1024}});
  server->stopping();
  server->stopped(3, "why");
  server->close();
  std::vector<Json> events;
  while (auto line = listener.next()) {
    CHECK(line->at("method") == "event");
    CHECK_FALSE(line->contains("id"));
    CHECK(line->at("params").at("time_ms").get<std::int64_t>() > 1'600'000'000'000);
    line->at("params").erase("time_ms");
    events.push_back(line->at("params"));
  }
  CHECK(Json(events) == Json::parse(R"([{"event":"running"},{"event":"paused"},
      {"event":"resumed"},{"event":"disk_resized","disk":0,"size":1024},{"event":"stopping"},
      {"event":"stopped","exit_status":3,"message":"why"}])"));
  CHECK_FALSE(other.next());
}

TEST_CASE_FIXTURE(ControlFixture, "a sandbox that is to stop is resumed, and not paused again") {
  serve();
  ControlClient one = client();
  SUBCASE("when it is paused") {
    obey();
    ask(one, "pause");
    server->stopping();
    CHECK(run_until([&] { return asked.size() == 2; }));
  }
  SUBCASE("when it is being paused") {
    one.say(request(1, "pause"));
    CHECK(run_until([&] { return asked.size() == 1; }));
    server->stopping();
    answer(ControlKind::kDone, asked[0]);
    CHECK(run_until([&] { return asked.size() == 2; }));
    CHECK(next(one).contains("result"));
  }
  CHECK(asked[1].kind == ControlKind::kResume);
  const Json line = ask(one, "pause");
  CHECK(code_of(line) == -32000);
  CHECK(message_of(line) == "the sandbox is stopping");
}

TEST_CASE_FIXTURE(ControlFixture, "what the machine refuses is told in its words, made harmless") {
  machine = [&](const ControlMessage& message) {
    answer(ControlKind::kRefused, message, "not\nnow\x1b[2J\xff");
  };
  serve();
  ControlClient one = client();
  for (const char* method : {"pause", "resume", "counters"}) {
    const Json line = ask(one, method);
    CHECK(code_of(line) == -32000);
    CHECK(message_of(line) == "not?now?[2J?");
  }
  CHECK(ask(one, "status").at("result").at("state") == "starting");
}

TEST_CASE_FIXTURE(ControlFixture,
                  "counters that are none are the machine's fault, and are told as such") {
  std::string text;
  machine = [&](const ControlMessage& message) { answer(ControlKind::kDone, message, text); };
  serve();
  ControlClient one = client();
  for (const std::string& bad :
       {std::string(), std::string("\xff\0", 2), std::string("{}"), std::string(130'000, '[')}) {
    text = bad;
    const Json line = ask(one, "counters");
    CHECK(code_of(line) == -32000);
    CHECK(message_of(line).find("counters") != std::string::npos);
    check_serves();
  }
}

}  // namespace
}  // namespace msb::launcher
