// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_era.hpp"

#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/mcp_http.hpp"
#include "server/mcp_tools.hpp"
#include "server/server_testing.hpp"

namespace msb::server {
namespace {

using namespace testing;

constexpr const char* kMeta = R"({"io.modelcontextprotocol/protocolVersion":"2026-07-28",
    "io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},
    "io.modelcontextprotocol/clientCapabilities":{}})";
constexpr const char* kServer = "io.modelcontextprotocol/serverInfo";
constexpr const char* kSubscription = "io.modelcontextprotocol/subscriptionId";

// A request of a modern client; `more`: members of its parameters, each with a comma in front.
std::string modern(std::string_view method, std::string_view more = "") {
  return fmt::format(R"({{"jsonrpc":"2.0","id":7,"method":"{}","params":{{"_meta":{}{}}}}})",
                     method, kMeta, more);
}

std::string with_meta(std::string_view method, std::string_view meta) {
  return fmt::format(R"({{"jsonrpc":"2.0","id":7,"method":"{}","params":{{"_meta":{}}}}})", method,
                     meta);
}

std::expected<McpEra, McpError> judge(const std::string& text, const McpFields* fields) {
  const auto message = read_message(text);
  REQUIRE(message);
  return judge_era(*message, fields);
}

// ---------------------------------------------------------------------------- which era

TEST_CASE("a request is modern when it says so, and legacy when nothing says so") {
  const McpFields none;
  const McpFields old{"2025-06-18", "", ""};
  for (
      const auto* text :
      {R"({"jsonrpc":"2.0","id":1,"method":"ping"})",
       R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2026-07-28"}})",
       R"({"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"progressToken":1}}})",
       R"({"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":7}})",
       R"({"jsonrpc":"2.0","id":1,"result":{}})"}) {
    CAPTURE(text);
    CHECK(judge(text, nullptr) == McpEra::kLegacy);
    CHECK(judge(text, &none) == McpEra::kLegacy);
    CHECK(judge(text, &old) == McpEra::kLegacy);
  }
  const McpFields fields{"2026-07-28", "tools/list", ""};
  CHECK(judge(modern("tools/list"), nullptr) == McpEra::kModern);
  CHECK(judge(modern("tools/list"), &fields) == McpEra::kModern);
}

TEST_CASE("who a modern client is it need not say") {
  CHECK(judge(with_meta("tools/list", R"({"io.modelcontextprotocol/protocolVersion":"2026-07-28",
            "io.modelcontextprotocol/clientCapabilities":{}})"),
              nullptr) == McpEra::kModern);
}

TEST_CASE("a message that needs no answer is refused none for what a request would be") {
  const McpFields fields{"2026-07-28", "", ""};
  const std::string bare = R"({"jsonrpc":"2.0","method":"notifications/cancelled"})";
  CHECK(judge(bare, nullptr) == McpEra::kLegacy);
  CHECK(judge(bare, &fields) == McpEra::kModern);
  CHECK(judge(R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":
            {"_meta":{"io.modelcontextprotocol/protocolVersion":3}}})",
              nullptr) == McpEra::kModern);
}

TEST_CASE("a modern request that cannot be served is never served as a legacy one") {
  struct Bad {
    std::string text;
    std::optional<McpFields> fields;
    McpCode code;
    std::string says;
  };
  const auto meta = [](std::string_view members) {
    return with_meta("ping", fmt::format("{{{}}}", members));
  };
  const std::string revision = R"("io.modelcontextprotocol/protocolVersion":"2026-07-28")";
  const std::string capabilities = R"("io.modelcontextprotocol/clientCapabilities":{})";
  const McpFields right{"2026-07-28", "tools/list", ""};
  const std::vector<Bad> all = {
      // What it says of itself.
      {meta(R"("io.modelcontextprotocol/protocolVersion":5)"), {}, McpCode::kInvalidParams, "text"},
      {meta(R"("io.modelcontextprotocol/protocolVersion":null)"),
       {},
       McpCode::kInvalidParams,
       "text"},
      {meta(revision), {}, McpCode::kInvalidParams, "clientCapabilities"},
      {meta(revision + R"(,"io.modelcontextprotocol/clientCapabilities":[])"),
       {},
       McpCode::kInvalidParams,
       "clientCapabilities"},
      {meta(revision + "," + capabilities +
            R"(,"io.modelcontextprotocol/clientInfo":{"name":"x"})"),
       {},
       McpCode::kInvalidParams,
       "clientInfo"},
      {R"({"jsonrpc":"2.0","id":7,"method":"tools/list"})", right, McpCode::kInvalidParams,
       "protocolVersion"},
      {R"({"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"_meta":[]}})",
       McpFields{"2031-01-01", "tools/list", ""}, McpCode::kInvalidParams, "protocolVersion"},
      // The revision.
      {meta(R"("io.modelcontextprotocol/protocolVersion":"2025-11-25",)" + capabilities),
       {},
       McpCode::kUnsupportedRevision,
       "initialize"},
      {meta(R"("io.modelcontextprotocol/protocolVersion":"2027-05-05",)" + capabilities),
       McpFields{"2027-05-05", "", ""}, McpCode::kUnsupportedRevision, "2027-05-05"},
      // The fields.
      {modern("tools/list"), McpFields{}, McpCode::kHeaderMismatch, "MCP-Protocol-Version"},
      {modern("tools/list"), McpFields{"2025-11-25", "tools/list", ""}, McpCode::kHeaderMismatch,
       "2025-11-25"},
      {modern("tools/list"), McpFields{"2026-07-28", "", ""}, McpCode::kHeaderMismatch,
       "Mcp-Method"},
      {modern("tools/list"), McpFields{"2026-07-28", "Tools/List", ""}, McpCode::kHeaderMismatch,
       "Tools/List"},
      {modern("tools/call", R"(,"name":"sandbox_stop")"), McpFields{"2026-07-28", "tools/call", ""},
       McpCode::kHeaderMismatch, "Mcp-Name"},
      {modern("tools/call", R"(,"name":"sandbox_stop")"),
       McpFields{"2026-07-28", "tools/call", "sandbox_start"}, McpCode::kHeaderMismatch,
       "sandbox_stop"},
      {modern("prompts/get", R"(,"name":"a")"),
       McpFields{"2026-07-28", "prompts/get", "=?base64?Yg==?="}, McpCode::kHeaderMismatch, "'a'"},
      {modern("prompts/get", R"(,"name":"a")"),
       McpFields{"2026-07-28", "prompts/get", "=?base64?%%?="}, McpCode::kHeaderMismatch, "base64"},
  };
  for (const Bad& bad : all) {
    CAPTURE(bad.text);
    CAPTURE(bad.says);
    const auto judged = judge(bad.text, bad.fields ? &*bad.fields : nullptr);
    REQUIRE_FALSE(judged);
    CHECK(judged.error().code == bad.code);
    CHECK(judged.error().problem.message.contains(bad.says));
  }
}

TEST_CASE("the name that is called may be in base64 in its field") {
  const std::string text = modern("tools/call", ",\"name\":\"\xc3\xbc\"");
  for (const auto* name : {"=?base64?w7w=?=", "\xc3\xbc"}) {
    const McpFields fields{"2026-07-28", "tools/call", name};
    CHECK(judge(text, &fields) == McpEra::kModern);
  }
  // What is wrong with these is told as what is wrong with a call.
  const McpFields nameless{"2026-07-28", "tools/call", ""};
  CHECK(judge(modern("tools/call"), &nameless) == McpEra::kModern);
  CHECK(judge(modern("tools/call", R"(,"name":1)"), &nameless) == McpEra::kModern);
}

TEST_CASE("who asks for another revision is told those that there are") {
  const auto refused =
      judge(with_meta("tools/list", R"({"io.modelcontextprotocol/protocolVersion":"2027-05-05",
          "io.modelcontextprotocol/clientCapabilities":{}})"),
            nullptr);
  REQUIRE_FALSE(refused);
  CHECK(response_message(1, std::unexpected(refused.error()))["error"]["data"] ==
        json(R"({"code":2001,"supported":
            ["2026-07-28","2025-11-25","2025-06-18","2025-03-26","2024-11-05"],
            "requested":"2027-05-05"})"));
}

TEST_CASE("a revision that there is not is refused to a legacy client, too") {
  const McpFields fields{"2020-01-01", "", ""};
  const auto refused = judge(R"({"jsonrpc":"2.0","id":1,"method":"ping"})", &fields);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == McpCode::kInvalidRequest);
  CHECK(refused.error().problem.message.contains("2020-01-01"));
}

// ---------------------------------------------------------------------------- what is served

struct Conversation : Bed {
  // What is said to a line, of whichever era that is.
  std::vector<Json> say(const std::string& text) {
    const auto era = judge(text, nullptr);
    REQUIRE(era);
    return converse(*this, session, text, {}, *era);
  }
  Json ask(const std::string& text) {
    auto messages = say(text);
    REQUIRE(messages.size() == 1);
    return messages.front();
  }

  McpSession session{app, "session"};
};

TEST_CASE("discover says what there is") {
  Conversation client;
  const Json result = client.ask(modern("server/discover"))["result"];
  CHECK(result["supportedVersions"] ==
        json(R"(["2026-07-28","2025-11-25","2025-06-18","2025-03-26","2024-11-05"])"));
  CHECK(result["capabilities"] ==
        json(R"({"tools":{"listChanged":false},"prompts":{"listChanged":false}})"));
  CHECK(result["instructions"].is_string());
  CHECK(result["resultType"] == "complete");
  CHECK(result["ttlMs"].is_number_unsigned());
  CHECK(result["cacheScope"] == "public");
  CHECK(result["_meta"][kServer]["name"] == "microsandbox-server");
}

TEST_CASE(
    "results of the modern era say that they are complete and whose, those of the legacy "
    "era nothing of it") {
  Conversation client;
  const std::string list = R"(,"name":"sandbox_list")";
  for (const auto& [text, kept] :
       std::map<std::string, bool>{{modern("tools/list"), true},
                                   {modern("prompts/list"), true},
                                   {modern("tools/call", list), false}}) {
    const Json result = client.ask(text)["result"];
    CHECK(result["resultType"] == "complete");
    CHECK(result["_meta"].contains(kServer));
    CHECK(result.contains("ttlMs") == kept);
    CHECK(result.contains("cacheScope") == kept);
  }
  for (const auto* method : {"ping", "tools/list", "prompts/list", "initialize"}) {
    const Json result =
        client.ask(fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":"{}"}})", method))["result"];
    for (const auto* member : {"resultType", "_meta", "ttlMs", "cacheScope"}) {
      CHECK_FALSE(result.contains(member));
    }
  }
}

TEST_CASE("each era has its methods, in one conversation") {
  Conversation client;
  for (const auto* method : {"initialize", "ping", "logging/setLevel", "notifications/initialized",
                             "resources/list", "tasks/list"}) {
    CHECK(client.ask(modern(method))["error"]["code"] == -32601);
  }
  for (const auto* method : {"server/discover", "subscriptions/listen"}) {
    const Json refused =
        client.ask(fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":"{}"}})", method));
    CHECK(refused["error"]["code"] == -32601);
  }
  CHECK(client.ask(R"({"jsonrpc":"2.0","id":7,"method":"ping"})")["result"] == Json::object());
  CHECK(client.ask(modern("tools/list"))["result"]["tools"] == mcp_tools());
  const Json agreed = client.ask(R"({"jsonrpc":"2.0","id":7,"method":"initialize","params":
      {"protocolVersion":"2026-07-28"}})");
  CHECK(agreed["result"]["protocolVersion"] == "2025-11-25");
}

TEST_CASE("who listens is acknowledged nothing, and that is all") {
  Conversation client;
  const auto messages =
      client.say(modern("subscriptions/listen", R"(,"notifications":{"toolsListChanged":true})"));
  REQUIRE(messages.size() == 2);
  CHECK(messages[0]["method"] == "notifications/subscriptions/acknowledged");
  CHECK_FALSE(messages[0].contains("id"));
  CHECK(messages[0]["params"]["notifications"] == Json::object());
  CHECK(messages[0]["params"]["_meta"][kSubscription] == 7);
  CHECK(messages[1]["id"] == 7);
  CHECK(messages[1]["result"]["resultType"] == "complete");
  CHECK(messages[1]["result"]["_meta"][kSubscription] == 7);
  CHECK(messages[1]["result"]["_meta"].contains(kServer));
  for (const auto* more : {"", R"(,"notifications":[])"}) {
    CHECK(client.ask(modern("subscriptions/listen", more))["error"]["code"] == -32602);
  }
}

// ---------------------------------------------------------------------------- over HTTP

struct HttpBed : Bed {
  std::unique_ptr<FakeExchange> ask(FakeExchange::Fields fields, std::string body,
                                    std::string_view method = "POST") {
    fields.emplace("Accept", "application/json, text/event-stream");
    auto exchange =
        std::make_unique<FakeExchange>(method, "/mcp", std::move(fields), std::move(body));
    run(serve_mcp(app, sessions, *exchange));
    CHECK(exchange->ended);
    return exchange;
  }
  // With the fields that belong to it.
  std::unique_ptr<FakeExchange> ask_modern(const std::string& method, std::string_view more = "",
                                           FakeExchange::Fields fields = {}) {
    fields.emplace("MCP-Protocol-Version", "2026-07-28");
    fields.emplace("Mcp-Method", method);
    return ask(std::move(fields), modern(method, more));
  }

  McpSessions sessions{app};
};

TEST_CASE("a modern request over HTTP stands by itself") {
  HttpBed bed;
  const auto called =
      bed.ask_modern("tools/call", R"(,"name":"sandbox_list")",
                     {{"Mcp-Name", "sandbox_list"}, {"Mcp-Session-Id", "of another server"}});
  CHECK(called->given.status == 200);
  CHECK(json(called->given.body)["result"]["isError"] == false);
  CHECK(called->field("Mcp-Session-Id").empty());
  const auto noted = bed.ask({{"MCP-Protocol-Version", "2026-07-28"}, {"Mcp-Session-Id", "x"}},
                             R"({"jsonrpc":"2.0","method":"notifications/cancelled"})");
  CHECK(noted->given.status == 202);
  for (const auto* method : {"GET", "DELETE"}) {
    const auto refused =
        bed.ask({{"MCP-Protocol-Version", "2026-07-28"}, {"Mcp-Session-Id", "x"}}, "", method);
    CHECK(refused->given.status == 405);
  }
}

TEST_CASE("the status tells a request that is not served from one that fails") {
  HttpBed bed;
  struct Case {
    std::unique_ptr<FakeExchange> asked;
    unsigned status;
    int code;
  };
  std::vector<Case> all;
  all.push_back({bed.ask_modern("ping"), 404, -32601});
  all.push_back({bed.ask_modern("initialize", R"(,"protocolVersion":"2025-11-25")"), 404, -32601});
  all.push_back({bed.ask_modern("tools/list", "", {{"Mcp-Method", "ping"}}), 400, -32020});
  all.push_back({bed.ask({}, modern("tools/list")), 400, -32020});
  all.push_back({bed.ask({{"MCP-Protocol-Version", "2026-07-28"}},
                         R"({"jsonrpc":"2.0","id":7,"method":"tools/list"})"),
                 400, -32602});
  all.push_back({bed.ask_modern("tools/list", R"(,"cursor":"x")"), 200, -32602});
  all.push_back({bed.ask_modern("tools/call"), 200, -32602});
  for (const Case& one : all) {
    const Json answer = json(one.asked->given.body);
    CAPTURE(one.asked->given.body);
    CHECK(one.asked->given.status == one.status);
    CHECK(answer["error"]["code"] == one.code);
    CHECK(answer["id"] == 7);
    CHECK(one.asked->field("Mcp-Session-Id").empty());
  }
}

// Clients that try the newest revision first take an error without it for a broken server.
TEST_CASE("what is refused for its revision or its session has the id of its request") {
  HttpBed bed;
  for (const auto& [field, value, status] :
       {std::tuple{"MCP-Protocol-Version", "2020-01-01", 400U},
        std::tuple{"Mcp-Session-Id", "no such session", 404U}}) {
    const auto refused =
        bed.ask({{field, value}}, R"({"jsonrpc":"2.0","id":"a","method":"tools/list"})");
    CHECK(refused->given.status == status);
    CHECK(json(refused->given.body)["id"] == "a");
  }
}

TEST_CASE("who listens over HTTP has a stream") {
  HttpBed bed;
  const auto listened = bed.ask_modern("subscriptions/listen", R"(,"notifications":{})");
  CHECK(listened->given.type == "text/event-stream");
  const std::string& body = listened->given.body;
  const auto acknowledged = body.find("notifications/subscriptions/acknowledged");
  REQUIRE(acknowledged != std::string::npos);
  CHECK(body.find("\"result\"") > acknowledged);
  CHECK(body.find("\"result\"") != std::string::npos);
}

}  // namespace
}  // namespace msb::server
