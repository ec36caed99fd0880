// SPDX-License-Identifier: Apache-2.0
#include "server/mcp.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "server/mcp_prompts.hpp"
#include "server/mcp_tools.hpp"
#include "server/server_testing.hpp"

namespace msb::server {
namespace {

using namespace testing;
using namespace std::chrono_literals;
using Kind = McpMessage::Kind;

// ---------------------------------------------------------------------------- messages

TEST_CASE("requests, notifications and responses are told apart") {
  const auto request = read_message(R"({"jsonrpc":"2.0","id":7,"method":"ping"})");
  REQUIRE(request);
  CHECK(request->kind == Kind::kRequest);
  CHECK(request->id == 7);
  CHECK(request->method == "ping");
  CHECK(request->params == Json::object());
  const auto notification = read_message(R"({"jsonrpc":"2.0","method":"n","params":{"a":1}})");
  REQUIRE(notification);
  CHECK(notification->kind == Kind::kNotification);
  CHECK(notification->params["a"] == 1);
  for (const auto* text : {R"({"jsonrpc":"2.0","id":1,"result":{}})",
                           R"({"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}})"}) {
    const auto response = read_message(text);
    REQUIRE(response);
    CHECK(response->kind == Kind::kResponse);
  }
  const auto null = read_message(R"({"jsonrpc":"2.0","id":"a","method":"m","params":null})");
  REQUIRE(null);
  CHECK(null->params == Json::object());
}

TEST_CASE("what is no message is refused with the code for it and the id that it has") {
  struct Bad {
    std::string text;
    McpCode code;
    std::string id;
    std::string says;
  };
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  const std::vector<Bad> all = {
      {"", McpCode::kParseError, "null", "JSON"},
      {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", McpCode::kParseError, "null", "JSON"},
      {deep, McpCode::kParseError, "null", "deep"},
      {"[]", McpCode::kInvalidRequest, "null", "batches"},
      {R"([{"jsonrpc":"2.0","id":1,"method":"ping"}])", McpCode::kInvalidRequest, "null",
       "batches"},
      {"3", McpCode::kInvalidRequest, "null", "object"},
      {"{}", McpCode::kInvalidRequest, "null", "jsonrpc"},
      {R"({"jsonrpc":"1.0","id":1,"method":"ping"})", McpCode::kInvalidRequest, "1", "jsonrpc"},
      {R"({"jsonrpc":2.0,"id":"x","method":"ping"})", McpCode::kInvalidRequest, R"("x")",
       "jsonrpc"},
      {R"({"jsonrpc":"2.0","id":null,"method":"ping"})", McpCode::kInvalidRequest, "null", "id"},
      {R"({"jsonrpc":"2.0","id":1.5,"method":"ping"})", McpCode::kInvalidRequest, "null", "id"},
      {R"({"jsonrpc":"2.0","id":[1],"method":"ping"})", McpCode::kInvalidRequest, "null", "id"},
      {R"({"jsonrpc":"2.0","id":1})", McpCode::kInvalidRequest, "1", "method"},
      {R"({"jsonrpc":"2.0","id":1,"method":3})", McpCode::kInvalidRequest, "1", "method"},
      {R"({"jsonrpc":"2.0","id":1,"method":"m","params":[1]})", McpCode::kInvalidParams, "1",
       "params"},
  };
  for (const Bad& bad : all) {
    CAPTURE(bad.text);
    const auto message = read_message(bad.text);
    REQUIRE_FALSE(message);
    CHECK(message.error().error.code == bad.code);
    CHECK(to_text(message.error().id) == bad.id);
    CHECK(message.error().error.problem.message.contains(bad.says));
  }
}

TEST_CASE("an error has the code of JSON-RPC, and the number of the 0.2 line as data") {
  const Json message = response_message(
      "a", mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid, "it is {}", "wrong"));
  CHECK(message == json(R"({"jsonrpc":"2.0","id":"a",
      "error":{"code":-32602,"message":"it is wrong","data":{"code":2001}}})"));
}

TEST_CASE("progress is told at most five times a second, and only when it goes on") {
  const auto start = ProgressNotes::Clock::now();
  ProgressNotes notes("token");
  const auto first = notes.note(start, 10, 100, "pulling");
  REQUIRE(first);
  CHECK(*first == json(R"({"jsonrpc":"2.0","method":"notifications/progress",
      "params":{"progressToken":"token","progress":10,"total":100,"message":"pulling"}})"));
  CHECK_FALSE(notes.note(start + 199ms, 20, 100, ""));
  CHECK_FALSE(notes.note(start + 1s, 10, 100, ""));
  const auto second = notes.note(start + 2s, 20, 0, "");
  REQUIRE(second);
  CHECK_FALSE((*second)["params"].contains("total"));
  CHECK_FALSE((*second)["params"].contains("message"));
}

TEST_CASE("a long message of progress is cut between characters") {
  std::string text(199, 'a');
  for (int i = 0; i < 50; ++i) {
    text += "\xe2\x82\xac";  // U+20AC
  }
  ProgressNotes notes(1);
  const auto note = notes.note(ProgressNotes::Clock::now(), 1, 0, text);
  REQUIRE(note);
  CHECK((*note)["params"]["message"] == std::string(199, 'a'));
}

// ---------------------------------------------------------------------------- requests

TEST_CASE("initialize answers with the client's revision where that is spoken, else the newest") {
  Bed bed;
  for (const auto& [asked, answered] :
       std::map<std::string, std::string>{{"2025-11-25", "2025-11-25"},
                                          {"2025-06-18", "2025-06-18"},
                                          {"2025-03-26", "2025-03-26"},
                                          {"2024-11-05", "2024-11-05"},
                                          {"2023-01-01", "2025-11-25"},
                                          {"2099-01-01", "2025-11-25"}}) {
    const Json response =
        ask(bed, fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":"initialize","params":
            {{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{{"name":"t","version":"1"}}}}}})",
                             asked));
    const Json& result = response["result"];
    CHECK(result["protocolVersion"] == answered);
    CHECK(result["serverInfo"]["name"] == "microsandbox-server");
    CHECK(result["capabilities"] ==
          json(R"({"tools":{"listChanged":false},"prompts":{"listChanged":false}})"));
    CHECK(result["instructions"].is_string());
  }
  const Json wrong =
      ask(bed, R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}})");
  CHECK(wrong["error"]["code"] == -32602);
}

TEST_CASE("ping is answered, and an unknown method with the one that was meant") {
  Bed bed;
  CHECK(ask(bed, R"({"jsonrpc":"2.0","id":"p","method":"ping"})") ==
        json(R"({"jsonrpc":"2.0","id":"p","result":{}})"));
  const Json response = ask(bed, R"({"jsonrpc":"2.0","id":1,"method":"tools/lst"})");
  CHECK(response["error"]["code"] == -32601);
  CHECK(response["error"]["message"].get<std::string>().contains("tools/list"));
  for (const auto* method : {"resources/list", "completion/complete", "logging/setLevel"}) {
    const Json refused =
        ask(bed, fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":"{}"}})", method));
    CHECK(refused["error"]["code"] == -32601);
  }
}

TEST_CASE("lists are one page") {
  Bed bed;
  const Json tools = ask(bed, R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})");
  CHECK(tools["result"]["tools"] == mcp_tools());
  const Json prompts =
      ask(bed, R"({"jsonrpc":"2.0","id":1,"method":"prompts/list","params":{"cursor":null}})");
  CHECK(prompts["result"]["prompts"] == mcp_prompts());
  const Json paged =
      ask(bed, R"({"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}})");
  CHECK(paged["error"]["code"] == -32602);
}

TEST_CASE("a wrong call of a tool is a result that a model can mend, an unknown tool an error") {
  Bed bed;
  const Json unknown = ask(
      bed, R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"sandbox_strat"}})");
  CHECK(unknown["error"]["code"] == -32602);
  CHECK(unknown["error"]["message"].get<std::string>().contains("sandbox_start"));
  for (const auto* params : {"{}", R"({"name":1})", R"({"name":null})"}) {
    const Json nameless =
        ask(bed,
            fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}})", params));
    CHECK(nameless["error"]["code"] == -32602);
  }
  for (const auto* arguments :
       {"1", "[]", R"("x")", "{}", R"({"sandbox":1,"code":"","language":"python"})",
        R"({"sandbox":"x","code":"1","language":"cobol"})",
        R"({"sandbox":"x","code":"1","language":"python","timeout":-1})"}) {
    CAPTURE(arguments);
    const Json wrong = ask(bed, fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":"tools/call",
        "params":{{"name":"sandbox_run_code","arguments":{}}}}})",
                                            arguments));
    CHECK(wrong["result"]["isError"] == true);
    const auto text = wrong["result"]["content"][0]["text"].get<std::string>();
    CHECK(text.starts_with("Error: "));
    CHECK(text.contains("sandbox_run_code takes:"));
    CHECK(text.contains("- code (string, required)"));
    CHECK(text.contains("Example: sandbox_run_code {"));
  }
}

TEST_CASE("what fails in a sandbox is a result that says so") {
  Bed bed;
  const Json response = ask(bed, R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":
      {"name":"sandbox_stop","arguments":{"sandbox":"nowhere","namespace":null}}})");
  CHECK(response["result"]["isError"] == true);
  CHECK(response["result"]["content"][0]["text"] == "Error: there is no sandbox 'nowhere'");
}

TEST_CASE("a call without arguments has none") {
  Bed bed;
  for (const auto* name : {"sandbox_get_metrics", "sandbox_list"}) {
    for (const auto* more : {"", R"(,"arguments":null)", R"(,"arguments":{})"}) {
      const Json response =
          ask(bed, fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":"tools/call","params":
            {{"name":"{}"{}}}}})",
                               name, more));
      CHECK(response["result"]["isError"] == false);
      CHECK(json(response["result"]["content"][0]["text"].get<std::string>()) ==
            json(R"({"sandboxes":[]})"));
    }
  }
}

TEST_CASE("a key that is read-only runs and writes nothing") {
  Bed bed;
  Key key;
  key.id = "00000001";
  key.scope.read_only = true;
  for (const auto* call :
       {R"("sandbox_run_code","arguments":{"sandbox":"x","language":"python","code":"1"})",
        R"("sandbox_run_command","arguments":{"sandbox":"x","command":"ls"})",
        R"("sandbox_write_file","arguments":{"sandbox":"x","path":"/a","content":""})",
        R"("sandbox_remove_file","arguments":{"sandbox":"x","path":"/a"})",
        R"("sandbox_start","arguments":{"sandbox":"x","config":{"image":"a"}})"}) {
    const Json response =
        ask(bed,
            fmt::format(
                R"({{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{}}}}})", call),
            key);
    CHECK(response["result"]["isError"] == true);
    CHECK(response["result"]["content"][0]["text"].get<std::string>().contains("read-only"));
  }
}

TEST_CASE("the token of progress is a text or a whole number") {
  Bed bed;
  for (const auto* token : {"1.5", "[]", "true"}) {
    const Json response = ask(bed, fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":"ping","params":
            {{"_meta":{{"progressToken":{}}}}}}})",
                                               token));
    CHECK(response["error"]["code"] == -32602);
  }
}

TEST_CASE("a request that is cancelled gets no response, and its id is free again") {
  Bed bed;
  McpSession session(bed.app, "session");
  auto call = session.begin({}, *read_message(kSlowCall));
  REQUIRE(call);
  bed.io.poll_one();
  CHECK(session.calls() == 1);
  const auto again = session.begin({}, *read_message(kSlowCall));
  REQUIRE_FALSE(again);
  CHECK(again.error().code == McpCode::kInvalidRequest);
  // Of another request, and of nothing.
  session.notify(*read_message(
      R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"5"}})"));
  session.notify(*read_message(R"({"jsonrpc":"2.0","method":"notifications/cancelled"})"));
  session.notify(*read_message(R"({"jsonrpc":"2.0","method":"notifications/whatever"})"));
  CHECK(session.calls() == 1);
  session.notify(*read_message(
      R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}})"));
  CHECK(call->over());
  CHECK_FALSE(call->take());
  CHECK(session.calls() == 0);
  const auto pings = converse(bed, session, R"({"jsonrpc":"2.0","id":5,"method":"ping"})");
  CHECK(pings.size() == 1);
  // What it began comes to its end by itself.
  bed.run_until([&] { return bed.sandboxes.list({}, "").empty(); });
}

TEST_CASE("a session serves so many requests at a time, and cancels them when it ends") {
  Bed bed;
  McpSession session(bed.app, "session");
  std::deque<McpCall> calls;
  McpMessage request = *read_message(kSlowCall);
  for (std::size_t i = 0; i < McpSession::kMaxCalls; ++i) {
    request.id = i;
    auto call = session.begin({}, request);
    REQUIRE(call);
    calls.push_back(std::move(*call));
  }
  request.id = "one more";
  const auto refused = session.begin({}, request);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().problem.reason == Reason::kFull);
  bed.run(session.end());
  CHECK(session.calls() == 0);
  CHECK(std::ranges::all_of(calls, &McpCall::over));
}

}  // namespace
}  // namespace msb::server
