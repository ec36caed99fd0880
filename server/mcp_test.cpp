// SPDX-License-Identifier: Apache-2.0
#include "server/mcp.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "oci/base64.hpp"
#include "oci/test_support.hpp"
#include "server/mcp_content.hpp"
#include "server/mcp_http.hpp"
#include "server/mcp_prompts.hpp"
#include "server/mcp_stdio.hpp"
#include "server/mcp_tools.hpp"
#include "server/run_results.hpp"
#include "server/schema.hpp"

namespace msb::server {
namespace {

using namespace std::chrono_literals;
using Kind = McpMessage::Kind;

Json json(std::string_view text) {
  Json document = Json::parse(text, nullptr, false);
  REQUIRE_FALSE(document.is_discarded());
  return document;
}

const Json& tool_named(std::string_view name) {
  for (const Json& tool : mcp_tools()) {
    if (tool["name"] == name) {
      return tool;
    }
  }
  FAIL("there is no tool " << name);
  return mcp_tools();
}

// A server with no sandboxes, and where they would be kept is something else already: starts fail.
struct Bed {
  Bed() {
    REQUIRE(guests);
    oci::testing::write_file(home / "server", "");
  }

  // Runs a coroutine to its end.
  void run(Async<> work) {
    bool done = false;
    asio::co_spawn(io, std::move(work), [&](const std::exception_ptr& error) {
      CHECK_FALSE(error);
      done = true;
    });
    run_until([&] { return done; });
  }
  template <typename Condition>
  void run_until(Condition condition) {
    io.restart();
    while (!condition()) {
      REQUIRE(io.run_one_for(20s) == 1);
    }
  }

  oci::testing::TemporaryDirectory home;
  asio::io_context io{1};
  Result<std::unique_ptr<AsioIo>> guests = AsioIo::create(io);
  Workers workers{io, 2};
  Sandboxes sandboxes{io, **guests, workers, {home.path(), "", {}}};
  App app{io, sandboxes};
};

// What a session says to one message.
std::vector<Json> converse(Bed& bed, McpSession& session, std::string_view text, Key key = {}) {
  auto message = read_message(text);
  REQUIRE(message);
  const Json id = message->id;
  auto call = session.begin(std::move(key), std::move(*message));
  if (!call) {
    return {response_message(id, std::unexpected(call.error()))};
  }
  std::vector<Json> messages;
  const auto collect = [](McpCall& from, std::vector<Json>& to) -> Async<> {
    while (!from.over()) {
      const bool come = co_await from.wait();
      if (!come) {
        break;
      }
      if (auto one = from.take()) {
        to.push_back(std::move(*one));
      }
    }
  };
  bed.run(collect(*call, messages));
  return messages;
}

Json ask(Bed& bed, std::string_view text, Key key = {}) {
  McpSession session(bed.app, "session");
  auto messages = converse(bed, session, text, std::move(key));
  REQUIRE(messages.size() == 1);
  return messages.front();
}

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

TEST_CASE("ephemeral sandboxes need a session") {
  Bed bed;
  McpSession none(bed.app, "");
  const auto messages = converse(bed, none, R"({"jsonrpc":"2.0","id":1,"method":"tools/call",
      "params":{"name":"sandbox_start","arguments":
      {"sandbox":"x","config":{"image":"a"},"ephemeral":true}}})");
  REQUIRE(messages.size() == 1);
  CHECK(messages[0]["result"]["isError"] == true);
  CHECK(messages[0]["result"]["content"][0]["text"].get<std::string>().contains("ephemeral"));
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

// It waits for another thread.
constexpr const char* kSlowCall = R"({"jsonrpc":"2.0","id":5,"method":"tools/call","params":
    {"name":"sandbox_start","arguments":{"sandbox":"slow","config":{"image":"localhost:1/x"}}}})";

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

// ---------------------------------------------------------------------------- tools and prompts

TEST_CASE("every tool is described, and its example is a right call") {
  std::set<std::string> names;
  for (const Json& tool : mcp_tools()) {
    const auto name = tool["name"].get<std::string>();
    CAPTURE(name);
    CHECK(names.insert(name).second);
    CHECK(tool["title"].is_string());
    CHECK(tool["inputSchema"]["type"] == "object");
    CHECK(tool["inputSchema"]["additionalProperties"] == false);
    for (const auto* hint :
         {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}) {
      CHECK(tool["annotations"][hint].is_boolean());
    }
    CHECK_FALSE(tool.contains("outputSchema"));
    for (const auto& [property, schema] : tool["inputSchema"]["properties"].items()) {
      CAPTURE(property);
      CHECK(schema.is_object());
      CHECK(schema["description"].is_string());
    }
    const auto text = tool["description"].get<std::string>();
    const std::string lead = "Example: " + name + " ";
    const auto example = text.find(lead);
    REQUIRE(example != std::string::npos);
    Json arguments = json(text.substr(example + lead.size()));
    CHECK(check_tool_arguments(tool, arguments));
  }
  for (const auto* name : {"sandbox_start", "sandbox_stop", "sandbox_run_code",
                           "sandbox_run_command", "sandbox_get_metrics"}) {
    CHECK(names.contains(name));
  }
}

TEST_CASE("every tool has a function") {
  Bed bed;
  for (const Json& tool : mcp_tools()) {
    // Known, for what is wrong are the arguments; or it was done, of nothing.
    const Json response =
        ask(bed, fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":"tools/call","params":
            {{"name":"{}","arguments":{{}}}}}})",
                             tool["name"].get<std::string>()));
    CHECK(response.contains("result"));
  }
}

TEST_CASE("tools take what 0.2 clients send") {
  for (const auto& [name, text] : std::vector<std::pair<std::string, std::string>>{
           {"sandbox_start", R"({"sandbox":"a","namespace":"default","config":{
               "image":"microsandbox/python","memory":512,"cpus":1,"volumes":[],"ports":[],
               "envs":["A=b"]}})"},
           {"sandbox_stop", R"({"sandbox":"a","namespace":"default"})"},
           {"sandbox_run_code",
            R"({"sandbox":"a","namespace":"default","code":"1","language":"nodejs"})"},
           {"sandbox_run_command",
            R"({"sandbox":"a","namespace":"default","command":"ls","args":["-l"]})"},
           {"sandbox_get_metrics", R"({"namespace":"*"})"}}) {
    CAPTURE(name);
    Json arguments = json(text);
    const auto good = check_tool_arguments(tool_named(name), arguments);
    CHECK_MESSAGE(good, (good ? "" : good.error().message));
  }
}

TEST_CASE("an argument that is null counts as left out, unless it is needed") {
  Json arguments = json(R"({"sandbox":"a","path":"/","mode":null,"content":"x","namespace":null})");
  CHECK(check_tool_arguments(tool_named("sandbox_write_file"), arguments));
  CHECK(arguments == json(R"({"sandbox":"a","path":"/","content":"x"})"));
  arguments = json(R"({"sandbox":null})");
  const auto missing = check_tool_arguments(tool_named("sandbox_stop"), arguments);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().message.starts_with("\"sandbox\" is missing"));
}

TEST_CASE("an argument that is not known is told with the one that was meant") {
  Json arguments = json(R"({"sandbox":"a","comand":"ls"})");
  const auto wrong = check_tool_arguments(tool_named("sandbox_run_command"), arguments);
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().message.contains("\"comand\" is not known; did you mean \"command\"?"));
}

TEST_CASE("prompts have their arguments filled in, once") {
  const auto prompt = get_mcp_prompt(json(
      R"({"name":"analyse_data","arguments":{"sandbox_name":"{file}","file":"/data/a.csv"}})"));
  REQUIRE(prompt);
  const Json& message = (*prompt)["messages"][0];
  CHECK(message["role"] == "user");
  CHECK(message["content"]["type"] == "text");
  const auto text = message["content"]["text"].get<std::string>();
  CHECK(text.contains("\"/data/a.csv\" in the sandbox \"{file}\""));
  for (const Json& one : mcp_prompts()) {
    CHECK_FALSE(one.contains("text"));
    Json arguments = Json::object();
    for (const Json& argument : one["arguments"]) {
      arguments[argument["name"].get<std::string>()] = "word";
    }
    const auto filled = get_mcp_prompt({{"name", one["name"]}, {"arguments", arguments}});
    REQUIRE(filled);
    CHECK_FALSE((*filled)["messages"][0]["content"]["text"].get<std::string>().contains("{"));
  }
}

TEST_CASE("a wrong prompt is an error that names what is wrong") {
  for (const auto& [params, says] : std::vector<std::pair<std::string, std::string>>{
           {"{}", "name"},
           {R"({"name":"create_pyton_sandbox"})", "create_python_sandbox"},
           {R"({"name":"create_node_sandbox"})", "sandbox_name"},
           {R"({"name":"create_node_sandbox","arguments":[]})", "arguments"},
           {R"({"name":"create_node_sandbox","arguments":{"sandbox_name":1}})", "sandbox_name"},
           {R"({"name":"create_node_sandbox","arguments":{"sandbox_name":"a","x":"b"}})",
            "\"x\""}}) {
    CAPTURE(params);
    const auto prompt = get_mcp_prompt(json(params));
    REQUIRE_FALSE(prompt);
    CHECK(prompt.error().code == McpCode::kInvalidParams);
    CHECK(prompt.error().problem.message.contains(says));
  }
}

// ---------------------------------------------------------------------------- results

TEST_CASE("output is lines in the order of their ends, of both streams") {
  OutputLines lines;
  lines.add(MSB_STREAM_STDOUT, "one\ntw");
  lines.add(MSB_STREAM_STDERR, "error\r\n");
  lines.add(MSB_STREAM_STDOUT, "o\n\nlast");
  lines.add_apart(MSB_STREAM_STDOUT, "value");
  CHECK(lines.take() ==
        json(R"([{"stream":"stdout","text":"one"},{"stream":"stderr","text":"error"},
      {"stream":"stdout","text":"two"},{"stream":"stdout","text":""},
      {"stream":"stdout","text":"last"},{"stream":"stdout","text":"value"}])"));
  CHECK_FALSE(lines.truncated());
}

TEST_CASE("output is kept as long as there is room, and an error after it all the same") {
  for (const std::string& line : {std::string("\n"), std::string(1000, 'x') + "\n",
                                  std::string(1 << 20, '\x01'), std::string(100, '\xff') + "\n"}) {
    OutputLines lines;
    std::string piece;
    while (piece.size() < (1U << 20)) {
      piece += line;
    }
    for (int i = 0; i < 20; ++i) {
      lines.add(MSB_STREAM_STDOUT, piece);
    }
    CHECK(lines.truncated());
    lines.add_reserved(MSB_STREAM_STDERR, "Error: it failed");
    const Json kept = lines.take();
    const auto text = kept.dump(4, ' ', false, Json::error_handler_t::replace);
    CHECK(text.size() > OutputLines::kMost / 2);
    CHECK(text.size() <= OutputLines::kMost + OutputLines::kReserved);
    CHECK(kept.back() == json(R"({"stream":"stderr","text":"Error: it failed"})"));
  }
}

CodeResult result_with(std::vector<CodeValue> values) {
  return {{{"status", "success"}}, std::move(values)};
}

TEST_CASE("images that code shows are images, and other values the text that says most") {
  const std::string png = oci::encode_base64("\x89PNG");
  const Json content =
      code_content(result_with({{false, {{"text/plain", "<Figure>"}, {"image/png", png + "\n"}}},
                                {true, {{"text/plain", "<T at 1>"}, {"text/html", "<b>x</b>"}}},
                                {true, {{"text/plain", "a table"}, {"text/html", "<table>"}}},
                                {true, {{"text/plain", "7"}}},
                                {false, {{"text/html", "<i>"}, {"text/markdown", "*m*"}}},
                                {false, {{"image/png", "no base64!"}}}}));
  REQUIRE(content.size() == 5);
  CHECK(content[0] == json(R"({"type":"text","text":"{\n  \"status\": \"success\"\n}"})"));
  CHECK(content[1] == Json{{"type", "image"}, {"data", png}, {"mimeType", "image/png"}});
  CHECK(content[2] == json(R"({"type":"text","text":"text/html:\n<b>x</b>"})"));
  CHECK(content[3] == json(R"({"type":"text","text":"text/markdown:\n*m*"})"));
  CHECK(content[4]["type"] == "text");
}

TEST_CASE("values for which there is no room are left out, and that is told") {
  const std::string large = oci::encode_base64(std::string(9 << 20, 'x'));
  const Json content = code_content(result_with({{false, {{"image/png", large}}},
                                                 {false, {{"image/png", large}}},
                                                 {false, {{"image/png", large}}},
                                                 {false, {{"image/png", "AAAA"}}}}));
  REQUIRE(content.size() == 4);
  CHECK(content[2]["data"] == "AAAA");
  CHECK(content[3]["text"].get<std::string>().contains("2 more"));
}

FilePiece file(std::string bytes, std::uint64_t size = 0, std::uint64_t offset = 0) {
  const std::uint64_t length = bytes.size();
  return {"sandbox://default/a/f", std::move(bytes), offset, std::max(size, length)};
}

TEST_CASE("a file is text, an image, or a blob") {
  CHECK(file_content(file("h\xc3\xa9\n")) == json(R"([{"type":"text","text":"h\u00e9\n"}])"));
  CHECK(file_content(file("")) == json(R"([{"type":"text","text":""}])"));
  for (const auto& [bytes, type] : std::vector<std::pair<std::string, std::string>>{
           {"\x89PNG\r\n\x1a\n...", "image/png"},
           {"\xff\xd8\xff\xe0", "image/jpeg"},
           {"GIF89a", "image/gif"},
           {std::string("RIFF\0\0\0\0WEBP", 12), "image/webp"}}) {
    const Json content = file_content(file(bytes));
    CHECK(content[0]["type"] == "image");
    CHECK(content[0]["mimeType"] == type);
    CHECK(content[0]["data"] == oci::encode_base64(bytes));
  }
  for (const std::string& bytes :
       {std::string("a\0b", 3), std::string("\xff\xfe"), std::string("caf\xc3")}) {
    const Json content = file_content(file(bytes));
    REQUIRE(content.size() == 1);
    CHECK(content[0]["type"] == "resource");
    CHECK(content[0]["resource"]["uri"] == "sandbox://default/a/f");
    CHECK(content[0]["resource"]["blob"] == oci::encode_base64(bytes));
  }
}

TEST_CASE("a file that goes on says where, and not in the middle of a character") {
  const Json content = file_content(file("caf\xc3", 100, 20));
  REQUIRE(content.size() == 2);
  CHECK(content[0]["text"] == "caf");
  CHECK(content[1]["text"].get<std::string>().contains("\"offset\": 23"));
  const Json image = file_content(file("\x89PNG\r\n\x1a\n", 100));
  CHECK(image[0]["type"] == "resource");
  CHECK(image[1]["text"].get<std::string>().contains("\"offset\": 8"));
}

// ---------------------------------------------------------------------------- stdio

std::vector<std::string> lines_of(MessageLines& lines) {
  std::vector<std::string> all;
  while (const auto line = lines.next()) {
    all.push_back(line->too_long ? "TOO LONG" : line->text);
  }
  return all;
}

using Texts = std::vector<std::string>;

TEST_CASE("lines come whole, however they are cut") {
  const std::string text = "one\ntwo\r\n\nthree\n";
  for (std::size_t size = 1; size <= text.size(); ++size) {
    MessageLines lines;
    Texts all;
    for (std::size_t at = 0; at < text.size(); at += size) {
      lines.add(std::string_view(text).substr(at, size));
      for (std::string& line : lines_of(lines)) {
        all.push_back(std::move(line));
      }
    }
    CHECK(all == Texts{"one", "two", "", "three"});
    CHECK_FALSE(lines.finish());
  }
}

TEST_CASE("a line without an end is one at the end of the input") {
  MessageLines lines;
  lines.add("a\nb");
  CHECK(lines_of(lines) == Texts{"a"});
  const auto last = lines.finish();
  REQUIRE(last);
  CHECK(last->text == "b");
  CHECK_FALSE(lines.next());
}

TEST_CASE("a line that is too long is told once, and the next one is read") {
  for (const std::size_t size : {1, 3, 7, 100}) {
    const std::string text = "12345678\n" + std::string(50, 'x') + "\n123456789\nok\n";
    MessageLines lines(8);
    Texts all;
    for (std::size_t at = 0; at < text.size(); at += size) {
      lines.add(std::string_view(text).substr(at, size));
      for (std::string& line : lines_of(lines)) {
        all.push_back(std::move(line));
      }
    }
    CHECK(all == Texts{"12345678", "TOO LONG", "TOO LONG", "ok"});
  }
  MessageLines lines(8);
  lines.add("123456789");
  CHECK(lines_of(lines) == Texts{"TOO LONG"});
  lines.add("more");
  CHECK_FALSE(lines.finish());
}

// ---------------------------------------------------------------------------- HTTP

TEST_CASE("what a client accepts is read from the field") {
  const auto read = [](std::string_view field) {
    const Acceptable acceptable = read_accept(field);
    return std::pair(acceptable.json, acceptable.events);
  };
  CHECK(read("") == std::pair(true, false));
  CHECK(read("*/*") == std::pair(true, false));
  CHECK(read("application/json, text/event-stream") == std::pair(true, true));
  CHECK(read("Text/Event-Stream;q=0.5 , application/json;charset=utf-8") == std::pair(true, true));
  CHECK(read("text/event-stream") == std::pair(false, true));
  CHECK(read("text/html, application/xml") == std::pair(false, false));
  CHECK(read("application/json;q=0, text/event-stream") == std::pair(false, true));
}

// A request of a client, and what it is answered.
class FakeExchange final : public Exchange {
 public:
  using Fields = std::map<std::string, std::string, std::less<>>;
  FakeExchange(std::string method, Fields fields, std::string body)
      : fields_(std::move(fields)), body_(std::move(body)) {
    line_.method = std::move(method);
    line_.path = {"mcp"};
    line_.path_text = "/mcp";
  }

  [[nodiscard]] const RequestLine& line() const override { return line_; }
  [[nodiscard]] std::string_view header(std::string_view name) const override {
    const auto found = fields_.find(name);
    return found == fields_.end() ? std::string_view() : found->second;
  }
  [[nodiscard]] const std::string& id() const override { return id_; }
  Async<Outcome<std::string>> body(std::size_t /*limit*/) override { co_return body_; }
  Async<Outcome<std::span<const std::byte>>> read() override {
    co_return std::span<const std::byte>();
  }
  void answer(HttpAnswer answer) override {
    CHECK_FALSE(begun_);
    begun_ = ended = true;
    given = std::move(answer);
  }
  Async<> begin(HttpAnswer head) override {
    CHECK_FALSE(begun_);
    begun_ = true;
    given = std::move(head);
    co_return;
  }
  Async<> write(std::string_view piece) override {
    CHECK(begun_);
    given.body += piece;
    co_return;
  }
  Async<> end() override {
    ended = true;
    co_return;
  }
  [[nodiscard]] bool begun() const override { return begun_; }

  [[nodiscard]] std::string field(std::string_view name) const {
    for (const auto& [field, value] : given.headers) {
      if (field == name) {
        return value;
      }
    }
    return "";
  }

  HttpAnswer given;
  bool ended = false;

 private:
  RequestLine line_;
  Fields fields_;
  std::string body_;
  std::string id_ = "1";
  bool begun_ = false;
};

const FakeExchange::Fields kBoth = {{"Accept", "application/json, text/event-stream"},
                                    {"Content-Type", "application/json"}};
constexpr const char* kInitialize =
    R"({"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}})";
constexpr const char* kPing = R"({"jsonrpc":"2.0","id":1,"method":"ping"})";

struct HttpBed : Bed {
  std::unique_ptr<FakeExchange> ask(std::string method, FakeExchange::Fields fields,
                                    std::string body, const std::string& key = "") {
    auto exchange =
        std::make_unique<FakeExchange>(std::move(method), std::move(fields), std::move(body));
    exchange->key.id = key;
    run(serve_mcp(app, sessions, *exchange));
    CHECK(exchange->ended);
    return exchange;
  }
  std::string begin_session(const std::string& key = "") {
    return ask("POST", kBoth, kInitialize, key)->field("Mcp-Session-Id");
  }
  static FakeExchange::Fields with(FakeExchange::Fields fields, std::string session) {
    fields["Mcp-Session-Id"] = std::move(session);
    return fields;
  }

  McpSessions sessions{app};
};

TEST_CASE("0.2 clients, which have no session and accept anything, get one JSON answer") {
  HttpBed bed;
  for (const auto& fields : {FakeExchange::Fields(), FakeExchange::Fields{{"Accept", "*/*"}}}) {
    const auto listed =
        bed.ask("POST", fields, R"({"jsonrpc":"2.0","id":"x","method":"tools/list","params":{}})");
    CHECK(listed->given.status == 200);
    CHECK(listed->given.type == "application/json");
    CHECK(json(listed->given.body)["result"]["tools"].size() == mcp_tools().size());
    const auto noted =
        bed.ask("POST", fields, R"({"jsonrpc":"2.0","method":"notifications/initialized"})");
    CHECK(noted->given.status == 202);
    CHECK(noted->given.body.empty());
  }
}

TEST_CASE("a session begins with initialize, is its key's alone, and ends with DELETE") {
  HttpBed bed;
  const std::string id = bed.begin_session("key1");
  CHECK(id.size() == 43);
  CHECK(bed.ask("POST", bed.with(kBoth, id), kPing, "key1")->given.status == 200);
  CHECK(bed.ask("POST", bed.with(kBoth, id), kPing, "key2")->given.status == 404);
  CHECK(bed.ask("POST", bed.with(kBoth, "x"), kPing, "key1")->given.status == 404);
  CHECK(bed.ask("DELETE", bed.with({}, id), "", "key2")->given.status == 404);
  CHECK(bed.ask("DELETE", {}, "", "key1")->given.status == 405);
  CHECK(bed.ask("DELETE", bed.with({}, id), "", "key1")->given.status == 204);
  CHECK(bed.ask("POST", bed.with(kBoth, id), kPing, "key1")->given.status == 404);
}

TEST_CASE("an initialize that fails begins no session") {
  HttpBed bed;
  const auto failed =
      bed.ask("POST", kBoth,
              R"({"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":{}}})");
  CHECK(failed->field("Mcp-Session-Id").empty());
  CHECK(json(failed->given.body)["error"]["code"] == -32602);
}

TEST_CASE("fields that cannot be are refused, each with the status for it") {
  HttpBed bed;
  const auto status = [&](FakeExchange::Fields fields) {
    return bed.ask("POST", std::move(fields), kPing)->given.status;
  };
  CHECK(status({{"Accept", "text/html"}}) == 406);
  CHECK(status({{"Content-Type", "text/plain"}}) == 415);
  CHECK(status({{"Content-Type", "application/json; charset=utf-8"}}) == 200);
  CHECK(status({{"MCP-Protocol-Version", "2025-06-18"}}) == 200);
  CHECK(status({{"MCP-Protocol-Version", "2020-01-01"}}) == 400);
  for (const auto* method : {"PUT", "HEAD", "GET", "PATCH"}) {
    const auto refused = bed.ask(method, kBoth, "");
    CHECK(refused->given.status == 405);
    CHECK(refused->field("Allow") == "GET, POST, DELETE");
  }
}

TEST_CASE("a message that is none is refused by status, a request that fails by its response") {
  HttpBed bed;
  for (const auto* body : {"", "nonsense", "[]", R"({"jsonrpc":"2.0","id":1,"method":1})"}) {
    const auto refused = bed.ask("POST", kBoth, body);
    CHECK(refused->given.status == 400);
    CHECK(json(refused->given.body)["error"]["code"].is_number());
  }
  const auto unknown = bed.ask("POST", kBoth, R"({"jsonrpc":"2.0","id":1,"method":"nothing"})");
  CHECK(unknown->given.status == 200);
  CHECK(json(unknown->given.body)["error"]["code"] == -32601);
}

TEST_CASE("a response comes as a stream to who wants progress, or takes nothing else") {
  HttpBed bed;
  const std::string wants =
      R"({"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"progressToken":1}}})";
  const std::string event =
      "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";
  const auto streamed = bed.ask("POST", kBoth, wants);
  CHECK(streamed->given.type == "text/event-stream");
  CHECK(streamed->given.body == event);
  CHECK(bed.ask("POST", {{"Accept", "text/event-stream"}}, kPing)->given.body == event);
  CHECK(bed.ask("POST", {}, wants)->given.type == "application/json");
  const auto begun = bed.ask("POST", {{"Accept", "text/event-stream"}}, kInitialize);
  CHECK(begun->given.type == "text/event-stream");
  CHECK(begun->field("Mcp-Session-Id").size() == 43);
}

TEST_CASE("a session has one stream at a time, which ends with it") {
  HttpBed bed;
  const std::string id = bed.begin_session();
  const auto fields = bed.with({{"Accept", "text/event-stream"}}, id);
  FakeExchange stream("GET", fields, "");
  bool left = false;
  asio::co_spawn(bed.io, serve_mcp(bed.app, bed.sessions, stream),
                 [&](const std::exception_ptr&) { left = true; });
  bed.run_until([&] { return stream.begun(); });
  CHECK(stream.given.status == 200);
  CHECK(stream.given.type == "text/event-stream");
  CHECK(bed.ask("GET", fields, "")->given.status == 409);
  CHECK(bed.ask("DELETE", bed.with({}, id), "")->given.status == 204);
  bed.run_until([&] { return left; });
  CHECK(stream.ended);
}

TEST_CASE("a call that is cancelled by its client has an empty answer") {
  HttpBed bed;
  const std::string id = bed.begin_session();
  FakeExchange call("POST", bed.with(kBoth, id), kSlowCall);
  bool left = false;
  asio::co_spawn(bed.io, serve_mcp(bed.app, bed.sessions, call),
                 [&](const std::exception_ptr&) { left = true; });
  const auto cancelled =
      bed.ask("POST", bed.with(kBoth, id),
              R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}})");
  CHECK(cancelled->given.status == 202);
  bed.run_until([&] { return left; });
  CHECK(call.given.status == 202);
  CHECK(call.given.body.empty());
  bed.run_until([&] { return bed.sandboxes.list({}, "").empty(); });
}

TEST_CASE("a client that leaves cancels its call") {
  HttpBed bed;
  FakeExchange call("POST", kBoth, kSlowCall);
  bool left = false;
  asio::cancellation_signal gone;
  asio::co_spawn(bed.io, serve_mcp(bed.app, bed.sessions, call),
                 asio::bind_cancellation_slot(gone.slot(), [&](const std::exception_ptr& error) {
                   CHECK(error);
                   left = true;
                 }));
  bed.io.poll_one();
  gone.emit(asio::cancellation_type::terminal);
  bed.run_until([&] { return left; });
  CHECK_FALSE(call.begun());
  bed.run_until([&] { return bed.sandboxes.list({}, "").empty(); });
}

TEST_CASE("a key has so many sessions, and is told when there may be room") {
  HttpBed bed;
  for (std::size_t i = 0; i < McpSessions::kMostOfKey; ++i) {
    REQUIRE(bed.begin_session("key1").size() == 43);
  }
  const auto refused = bed.ask("POST", kBoth, kInitialize, "key1");
  CHECK(refused->given.status == 429);
  CHECK_FALSE(refused->field("Retry-After").empty());
  CHECK(refused->field("Mcp-Session-Id").empty());
  CHECK(bed.begin_session("key2").size() == 43);
}

TEST_CASE("all sessions end with the server, which begins nothing new") {
  HttpBed bed;
  const std::string id = bed.begin_session();
  FakeExchange stream("GET", bed.with({{"Accept", "text/event-stream"}}, id), "");
  bool left = false;
  asio::co_spawn(bed.io, serve_mcp(bed.app, bed.sessions, stream),
                 [&](const std::exception_ptr&) { left = true; });
  bed.io.poll_one();
  bed.app.draining = true;
  bed.run(bed.sessions.end_all());
  bed.run_until([&] { return left; });
  CHECK(stream.ended);
  CHECK(bed.ask("POST", kBoth, kInitialize)->given.status == 503);
}

}  // namespace
}  // namespace msb::server
