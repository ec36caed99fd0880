// SPDX-License-Identifier: Apache-2.0
#include "server/v1.hpp"

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "server/client_spec.hpp"
#include "server/schema.hpp"
#include "server/v1_streams.hpp"

namespace msb::server::v1 {
namespace {

std::set<std::string> methods_of_document() {
  std::set<std::string> all;
  for (const auto& [path, item] : document()["paths"].items()) {
    for (const auto& [method, operation] : item.items()) {
      if (method != "parameters") {
        all.insert(method + " " + path);
      }
    }
  }
  return all;
}

std::string lower(std::string_view method) {
  std::string word;
  for (const char c : method) {
    word.push_back(static_cast<char>(c | 0x20));
  }
  return word;
}

std::set<std::string> names_in(std::string_view path) {
  std::set<std::string> names;
  for (std::size_t at = path.find('{'); at != path.npos; at = path.find('{', at + 1)) {
    names.emplace(path.substr(at + 1, path.find('}', at) - at - 1));
  }
  return names;
}

std::set<std::string> members_of(const Json& schema) {
  std::set<std::string> names;
  for (const auto& [name, member] : schema["properties"].items()) {
    names.insert(name);
  }
  return names;
}

// Whether what it refers to is there, and what that does.
void follow_references(const Json& part) {
  if (const auto reference = part.is_object() ? part.find("$ref") : part.end();
      reference != part.end()) {
    const auto place = reference->get<std::string>();
    CAPTURE(place);
    REQUIRE(place.starts_with("#/"));
    CHECK(document().contains(Json::json_pointer(place.substr(1))));
  }
  for (const Json& member : part) {
    if (member.is_structured()) {
      follow_references(member);
    }
  }
}

// Each keyword of a schema is one that requests can be held against.
void check_usable(const Json& schema) {
  const Json& there =
      schema.contains("$ref")
          ? document()[Json::json_pointer(schema["$ref"].get<std::string>().substr(1))]
          : schema;
  CAPTURE(to_text(there));
  // Of every type, so that all keywords are come by.
  for (const Json& value : {Json(), Json(1), Json("x"), Json::array({1}), Json::object()}) {
    const auto checked = check_schema(there, value, "value", document());
    CHECK((checked || checked.error().code != kBadSchema));
  }
  if (const auto properties = there.find("properties"); properties != there.end()) {
    for (const auto& [name, member] : properties->items()) {
      check_usable(member);
    }
  }
  if (const auto items = there.find("items"); items != there.end()) {
    check_usable(*items);
  }
}

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST_CASE("the document and the server have the same operations") {
  std::set<std::string> served;
  for (const Route& route : routes()) {
    const std::string name = lower(route.method) + " " + std::string(route.path);
    CAPTURE(name);
    CHECK(served.insert(name).second);
  }
  CHECK(served == methods_of_document());
}

TEST_CASE("the document describes the names in each path, and requests can be held against it") {
  for (const Route& route : routes()) {
    CAPTURE(route.method);
    CAPTURE(route.path);
    const Expectation* expected = expectation(route.method, route.path);
    REQUIRE(expected != nullptr);
    CHECK(members_of(expected->path) == names_in(route.path));
    check_usable(expected->path);
    check_usable(expected->query);
    if (!expected->body.is_null()) {
      check_usable(expected->body);
    }
  }
}

TEST_CASE("the document refers to nothing that it does not have") {
  follow_references(document());
}

TEST_CASE("operations have names of their own") {
  std::set<std::string> names;
  for (const auto& [path, item] : document()["paths"].items()) {
    for (const auto& [method, operation] : item.items()) {
      if (method != "parameters") {
        CHECK(names.insert(operation["operationId"].get<std::string>()).second);
      }
    }
  }
}

TEST_CASE("the document has the code of every reason") {
  std::set<std::string> words;
  for (int reason = 0; reason <= static_cast<int>(Reason::kInternal); ++reason) {
    words.emplace(info(static_cast<Reason>(reason)).word);
  }
  const Json& problem = document()["components"]["schemas"]["Problem"];
  CHECK(problem["properties"]["code"]["enum"].get<std::set<std::string>>() == words);
}

TEST_CASE("a sandbox is described as every other interface takes it") {
  CHECK(document()["components"]["schemas"]["Config"] == config_schema());
}

TEST_CASE("the first stream that a client accepts is the one it gets") {
  CHECK(stream_format("") == std::nullopt);
  CHECK(stream_format("*/*") == std::nullopt);
  CHECK(stream_format("application/json, text/*") == std::nullopt);
  CHECK(stream_format("application/x-ndjson") == StreamFormat::kLines);
  CHECK(stream_format("text/event-stream;q=0.9") == StreamFormat::kServerSent);
  CHECK(stream_format("application/json , text/event-stream ;q=1, application/x-ndjson") ==
        StreamFormat::kServerSent);
}

TEST_CASE("an event is one line, or one server-sent event") {
  const Json event = {{"event", "log"}, {"text", "one\ntwo\r\n\xff"}};
  CHECK(encode_event(event, StreamFormat::kLines) ==
        "{\"event\":\"log\",\"text\":\"one\\ntwo\\r\\n\xef\xbf\xbd\"}\n");
  CHECK(encode_event(event, StreamFormat::kServerSent) ==
        "event: log\ndata: {\"event\":\"log\",\"text\":\"one\\ntwo\\r\\n\xef\xbf\xbd\"}\n\n");
}

TEST_CASE("output says where it was written, and from where to go on") {
  OutputEvents outputs;
  CHECK(
      *outputs.add(MSB_STREAM_STDOUT, bytes("ab\xe2\x82"), 14) ==
      Json{
          {"event", "output"}, {"stream", "stdout"}, {"offset", 10}, {"next", 12}, {"text", "ab"}});
  CHECK_FALSE(outputs.add(MSB_STREAM_STDERR, bytes("\xf0"), 1));
  CHECK(*outputs.add(MSB_STREAM_STDOUT, bytes("\xac"), 15) == Json{{"event", "output"},
                                                                   {"stream", "stdout"},
                                                                   {"offset", 12},
                                                                   {"next", 15},
                                                                   {"text", "\xe2\x82\xac"}});
  const auto rest = outputs.rest();
  REQUIRE(rest.size() == 1);
  CHECK(rest.front() == Json{{"event", "output"},
                             {"stream", "stderr"},
                             {"offset", 0},
                             {"next", 1},
                             {"base64", "8A=="}});
}

}  // namespace
}  // namespace msb::server::v1
