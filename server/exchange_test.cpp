// SPDX-License-Identifier: Apache-2.0
#include "server/exchange.hpp"

#include <doctest/doctest.h>

#include <string>

namespace msb::server {

namespace {

TEST_CASE("a target is taken apart into decoded segments and parameters") {
  const auto line =
      parse_target("GET", "/v1/sandboxes/a%20b/files?path=%2Fetc%2Fhosts&x=1+2&x=3&flag&=");
  REQUIRE(line);
  CHECK(line->method == "GET");
  CHECK(line->path == std::vector<std::string>{"v1", "sandboxes", "a b", "files"});
  CHECK(line->path_text == "/v1/sandboxes/a%20b/files");
  CHECK(line->query.size() == 3);
  CHECK(line->query.at("path") == "/etc/hosts");
  CHECK(line->query.at("x") == "3");
  CHECK(line->query.at("flag").empty());
  CHECK(parse_target("GET", "/")->path.empty());
  CHECK(parse_target("GET", "/v1/")->path == std::vector<std::string>{"v1"});
}

TEST_CASE("a target that could be read in two ways is refused") {
  for (const char* target :
       {"", "*", "v1", "http://localhost/v1", "//v1", "/v1//x", "/v1/../x", "/v1/%2e%2e/x", "/v1/.",
        "/v1/%", "/v1/%2", "/v1/%zz", "/v1/%00", "/v1?x=%", "/v1?%00=1"}) {
    CAPTURE(target);
    CHECK_FALSE(parse_target("GET", target));
  }
  // A slash that is encoded is part of a name.
  CHECK(parse_target("GET", "/v1/a%2Fb")->path.back() == "a/b");
}

TEST_CASE("JSON is parsed when it is bounded") {
  CHECK(parse_json(R"({"a": [1, {"b": "[{[{"}]})"));
  const std::string deep(65, '[');
  CHECK_FALSE(parse_json(deep + std::string(65, ']')));
  CHECK(parse_json(std::string(64, '[') + std::string(64, ']')));
  CHECK_FALSE(parse_json("{\"a\":1"));
  CHECK_FALSE(parse_json(""));
  CHECK_FALSE(parse_json("{} {}"));
  CHECK_FALSE(parse_json("\xff"));
  std::string wide = "{";
  for (int i = 0; i < 5000; ++i) {
    wide += fmt::format("\"{}\":0,", i);
  }
  CHECK_FALSE(parse_json(wide + "\"x\":0}"));
  const std::string name(256, 'n');
  CHECK(parse_json("{\"" + name + "\":\"" + std::string(1000, 'x') + "\"}"));
  CHECK_FALSE(parse_json("{\"" + name + "n\" : 0}"));
  CHECK_FALSE(parse_json(R"({"a\")"));
  std::string values = "[0";
  for (int i = 1; i < 1 << 18; ++i) {
    values += ",0";
  }
  CHECK(parse_json(values + "]"));
  CHECK_FALSE(parse_json(values + ",0]"));
  CHECK(parse_body("")->is_object());
}

TEST_CASE("an error has one shape, and says when to come again") {
  const HttpAnswer answer = error_answer({Reason::kFull, "no room", 5}, "id1");
  CHECK(answer.status == 429);
  CHECK(answer.body ==
        R"({"error":{"code":"full","number":3002,"message":"no room","request_id":"id1"}})");
  REQUIRE(answer.headers.size() == 1);
  CHECK(answer.headers.front() == std::pair<std::string, std::string>("Retry-After", "5"));
  CHECK(error_answer({Reason::kNoKey, "x", std::nullopt}, "").headers.front().first ==
        "WWW-Authenticate");
  CHECK(to_text(Json("\xff")) == "\"\xef\xbf\xbd\"");
}

}  // namespace

}  // namespace msb::server
