// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_http.hpp"

#include <doctest/doctest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "server/mcp_tools.hpp"
#include "server/server_testing.hpp"

namespace msb::server {
namespace {

using namespace testing;

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

const FakeExchange::Fields kBoth = {{"Accept", "application/json, text/event-stream"},
                                    {"Content-Type", "application/json"}};
constexpr const char* kInitialize =
    R"({"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}})";
constexpr const char* kPing = R"({"jsonrpc":"2.0","id":1,"method":"ping"})";

struct HttpBed : Bed {
  std::unique_ptr<FakeExchange> ask(std::string_view method, FakeExchange::Fields fields,
                                    std::string body, const std::string& key = "") {
    auto exchange =
        std::make_unique<FakeExchange>(method, "/mcp", std::move(fields), std::move(body));
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
  FakeExchange stream("GET", "/mcp", fields, "");
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
  FakeExchange call("POST", "/mcp", bed.with(kBoth, id), kSlowCall);
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
  FakeExchange call("POST", "/mcp", kBoth, kSlowCall);
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
  FakeExchange stream("GET", "/mcp", bed.with({{"Accept", "text/event-stream"}}, id), "");
  bool left = false;
  asio::co_spawn(bed.io, serve_mcp(bed.app, bed.sessions, stream),
                 [&](const std::exception_ptr&) { left = true; });
  bed.io.poll_one();
  bed.app.draining = true;
  bed.run(bed.sessions.end_all(Signal::Clock::now() + std::chrono::seconds(20)));
  bed.run_until([&] { return left; });
  CHECK(stream.ended);
  CHECK(bed.ask("POST", kBoth, kInitialize)->given.status == 503);
}

}  // namespace
}  // namespace msb::server
