// SPDX-License-Identifier: Apache-2.0
#include "launcher/json_rpc.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <array>
#include <string>
#include <string_view>

namespace msb::launcher {
namespace {

using namespace std::string_view_literals;

std::string nested(std::size_t levels) {
  return std::string(levels, '[') + std::string(levels, ']');
}

TEST_CASE("a request has a method, and may have an id and parameters") {
  const auto request =
      parse_request(R"({"jsonrpc":"2.0","id":7,"method":"status","params":{"a":[1]}})");
  REQUIRE(request);
  CHECK(request->id == Json(7));
  CHECK(request->method == "status");
  CHECK(request->parameters.at("a").size() == 1);
  const auto least = parse_request("  {\"method\":\"x\",\"jsonrpc\":\"2.0\"}\r");
  REQUIRE(least);
  CHECK_FALSE(least->id);
  CHECK(least->parameters == Json::object());
}

TEST_CASE("an id comes back as it was, also null, which is not none") {
  for (const char* id :
       {"0", "-1", "18446744073709551615", "\"\"", "\"\\u0000\\\"\xc3\xa9\"", "null"}) {
    CAPTURE(id);
    const auto request =
        parse_request(fmt::format(R"({{"jsonrpc":"2.0","id":{},"method":"x"}})", id));
    REQUIRE(request);
    REQUIRE(request->id);
    const std::string line = answer_line(*request->id, Json::object());
    CHECK(Json::parse(line).at("id") == Json::parse(id));
    CHECK(line.find('\n') == line.size() - 1);
  }
}

TEST_CASE("what is no request is answered by what is wrong with it") {
  struct Row {
    std::string line;
    RpcCode code;
    Json id;
    const char* says;
  };
  const Json none;
  for (const Row& row : {
           Row{"", RpcCode::kParseError, none, "not valid JSON"},
           Row{"status", RpcCode::kParseError, none, "not valid JSON"},
           Row{R"({"jsonrpc":"2.0","id":1,"method":)", RpcCode::kParseError, none, ""},
           Row{R"({"jsonrpc":"2.0","id":1,"method":"x"} x)", RpcCode::kParseError, none, ""},
           Row{R"({"jsonrpc":"2.0","id":NaN,"method":"x"})", RpcCode::kParseError, none, ""},
           Row{R"({"jsonrpc":"2.0","id":1e999,"method":"x"})", RpcCode::kParseError, none, ""},
           Row{"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}", RpcCode::kParseError, none, ""},
           Row{"\xef\xbb\xbf\xef\xbb\xbf{}", RpcCode::kParseError, none, ""},
           Row{std::string("\0\x01\x7f\x80", 4), RpcCode::kParseError, none, ""},
           Row{nested(30'000), RpcCode::kParseError, none, "deeper"},
           Row{std::string(60'000, '['), RpcCode::kParseError, none, "deeper"},
           Row{R"({"a":)" + nested(64) + "}", RpcCode::kParseError, none, "deeper"},
           Row{nested(64), RpcCode::kInvalidRequest, none, "batches"},
           Row{R"([{"jsonrpc":"2.0","id":1,"method":"x"}])", RpcCode::kInvalidRequest, none,
               "batches"},
           Row{"7", RpcCode::kInvalidRequest, none, "object"},
           Row{"null", RpcCode::kInvalidRequest, none, "object"},
           Row{"{}", RpcCode::kInvalidRequest, none, "jsonrpc"},
           Row{R"({"jsonrpc":2.0,"id":1,"method":"x"})", RpcCode::kInvalidRequest, 1, "jsonrpc"},
           Row{R"({"jsonrpc":"1.0","id":1,"method":"x"})", RpcCode::kInvalidRequest, 1, "jsonrpc"},
           Row{R"({"jsonrpc":"2.0","id":"a"})", RpcCode::kInvalidRequest, "a", "method"},
           Row{R"({"jsonrpc":"2.0","id":1,"method":7})", RpcCode::kInvalidRequest, 1, "method"},
           Row{R"({"jsonrpc":"2.0","id":[1],"method":"x"})", RpcCode::kInvalidRequest, none, "id"},
           Row{R"({"jsonrpc":"2.0","id":1.5,"method":"x"})", RpcCode::kInvalidRequest, none, "id"},
           Row{R"({"jsonrpc":"2.0","id":18446744073709551616,"method":"x"})",
               RpcCode::kInvalidRequest, none, "id"},
           Row{R"({"jsonrpc":"2.0","id":1,"method":"x","params":[1]})", RpcCode::kInvalidRequest, 1,
               "params"},
           Row{R"({"jsonrpc":"2.0","id":1,"method":"x","params":null})", RpcCode::kInvalidRequest,
               1, "params"},
           Row{R"({"jsonrpc":"2.0","id":1,"method":"x","parms\u001b":{}})",
               RpcCode::kInvalidRequest, 1, "\"parms?\""},
       }) {
    CAPTURE(row.line.substr(0, 100));
    const auto request = parse_request(row.line);
    REQUIRE_FALSE(request);
    CHECK(request.error().error.code == row.code);
    CHECK(request.error().id == row.id);
    CHECK(request.error().error.message.find(row.says) != std::string::npos);
  }
}

TEST_CASE("of members of one name the last one counts") {
  const auto request = parse_request(
      R"({"jsonrpc":"2.0","id":1,"id":2,"method":"a","method":"b","params":{"x":1,"x":2}})");
  REQUIRE(request);
  CHECK(request->id == Json(2));
  CHECK(request->method == "b");
  CHECK(request->parameters == Json::parse(R"({"x":2})"));
}

TEST_CASE("parameters that there are not are refused by name") {
  constexpr std::array kKnown{"disk"sv, "size"sv};
  CHECK(check_parameters(Json::object(), {}));
  CHECK(check_parameters(Json::parse(R"({"size":1,"disk":"x"})"), kKnown));
  const auto other = check_parameters(Json::parse(R"({"disk":1,"siez":2})"), kKnown);
  REQUIRE_FALSE(other);
  CHECK(other.error().code == RpcCode::kInvalidParameters);
  CHECK(other.error().message == "there is no parameter \"siez\"; there are disk, size");
  CHECK_FALSE(check_parameters(Json::parse(R"({"disk":1})"), {}));
}

TEST_CASE("a whole number is no fraction, no text, not negative and not too large") {
  for (const char* text : {"0", "18446744073709551615"}) {
    const auto number = whole_number(Json{{"n", Json::parse(text)}}, "n");
    REQUIRE(number);
    CHECK(std::to_string(number->value()) == text);
  }
  for (const char* text :
       {"-1", "1.0", "1e3", "18446744073709551616", "\"1\"", "true", "null", "[1]", "{}"}) {
    CAPTURE(text);
    const auto number = whole_number(Json{{"n", Json::parse(text)}}, "n");
    REQUIRE_FALSE(number);
    CHECK(number.error().code == RpcCode::kInvalidParameters);
    CHECK(number.error().message.find("\"n\"") != std::string::npos);
  }
  const auto missing = whole_number(Json::object(), "n");
  REQUIRE(missing);
  CHECK_FALSE(missing->has_value());
}

TEST_CASE("lines are objects of JSON-RPC, whatever text they carry") {
  CHECK(Json::parse(answer_line(1, Json::object())) ==
        Json::parse(R"({"jsonrpc":"2.0","id":1,"result":{}})"));
  CHECK(Json::parse(answer_line({}, std::unexpected(RpcError{RpcCode::kRefused, "\xff\n"}))) ==
        Json::parse(R"({"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"\ufffd\n"}})"));
  CHECK(Json::parse(notification_line("event", {{"event", "paused"}})) ==
        Json::parse(R"({"jsonrpc":"2.0","method":"event","params":{"event":"paused"}})"));
}

}  // namespace
}  // namespace msb::launcher
