// SPDX-License-Identifier: Apache-2.0
#include "server/schema.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

namespace msb::server {
namespace {

Json parse(std::string_view json) {
  Json document = Json::parse(json, nullptr, false);
  REQUIRE_FALSE(document.is_discarded());
  return document;
}

// What is wrong; empty for nothing.
std::string verdict(const Json& schema, const Json& value) {
  const auto checked = check_schema(schema, value, "arguments", schema);
  if (checked) {
    return "";
  }
  CAPTURE(checked.error().message);
  CHECK(checked.error().code == 0);
  return checked.error().message;
}

std::string wrong(std::string_view schema, std::string_view value) {
  return verdict(parse(schema), parse(value));
}

constexpr std::string_view kRun = R"({
  "type": "object",
  "title": "Run code", "description": "...", "examples": [{"code": "1"}],
  "properties": {
    "code": {"type": "string"},
    "language": {"type": "string", "enum": ["python", "javascript", "shell"], "default": "python"},
    "timeout": {"type": "number", "minimum": 1},
    "config": {"$ref": "#/$defs/config"}
  },
  "required": ["code"],
  "additionalProperties": false,
  "$defs": {
    "config": {
      "type": "object",
      "properties": {
        "memory": {"anyOf": [{"type": "integer", "minimum": 32, "maximum": 1024},
                             {"type": "string", "pattern": "^[0-9]+[MG]?$"}, {"type": "null"}]},
        "cpus": {"type": ["integer", "null"], "minimum": 1, "maximum": 64},
        "volumes": {"type": "array", "items": {"$ref": "#/$defs/volume"}, "maxItems": 4},
        "scripts": {"type": "object", "additionalProperties": {"type": "string"}}
      },
      "additionalProperties": false
    },
    "volume": {"type": "string", "minLength": 1, "maxLength": 8, "format": "path"}
  }
})";

TEST_CASE("what a schema describes is accepted") {
  for (const char* value :
       {R"({"code": ""})", R"({"code": "x", "language": "shell", "timeout": 1.5})",
        R"({"code": "x", "config": {}})",
        R"({"code": "x", "config": {"memory": null, "cpus": null}})",
        R"({"code": "x", "config": {"memory": "1G", "cpus": 64, "volumes": ["a", "bbbbbbbb"]}})",
        R"({"code": "x", "config": {"memory": 32.0, "scripts": {"start": "x", "a.b": ""}}})"}) {
    CAPTURE(value);
    CHECK(wrong(kRun, value) == "");
  }
}

TEST_CASE("what is wrong is said by its place, with what it may be") {
  struct Row {
    const char* value;
    const char* message;
  };
  for (
      const Row& row : {
          Row{"[]", R"("arguments" is a list, and has to be an object)"},
          Row{"null", R"("arguments" is null, and has to be an object)"},
          Row{R"({})", R"("code" is missing)"},
          Row{R"({"cod": "x"})", R"("cod" is not known; did you mean "code"?)"},
          Row{R"({"code": "x", "zzz": 1})", R"("zzz" is not known)"},
          Row{R"({"code": 3})", R"("code" is 3, and has to be a text)"},
          Row{R"({"code": true})", R"("code" is true, and has to be a text)"},
          Row{R"({"code": "x", "timeout": "5"})",
              R"("timeout" is a text, and has to be a number of at least 1)"},
          Row{R"({"code": "x", "timeout": 0})",
              R"("timeout" is 0, and has to be a number of at least 1)"},
          Row{R"({"code": "x", "language": "pyhton"})",
              R"("language" is "pyhton", which is none of python, javascript, shell; did you mean "python"?)"},
          Row{R"({"code": "x", "language": "ada"})",
              R"("language" is "ada", which is none of python, javascript, shell)"},
          Row{R"({"code": "x", "config": {"memroy": 1}})",
              R"("config.memroy" is not known; did you mean "memory"?)"},
          Row{R"({"code": "x", "config": {"cpus": 1.5}})",
              R"("config.cpus" is 1.5, and has to be a whole number from 1 to 64 or null)"},
          Row{R"({"code": "x", "config": {"cpus": 65}})",
              R"("config.cpus" is 65, and has to be a number from 1 to 64)"},
          Row{R"({"code": "x", "config": {"memory": []}})",
              R"("config.memory" is a list, and has to be a whole number from 32 to 1024 or a text or null)"},
          Row{R"({"code": "x", "config": {"memory": 16}})",
              R"("config.memory" is 16, and has to be a number from 32 to 1024)"},
          Row{R"({"code": "x", "config": {"memory": "lots"}})",
              R"("config.memory" is "lots", and has to match the pattern ^[0-9]+[MG]?$)"},
          Row{R"({"code": "x", "config": {"volumes": {}}})",
              R"("config.volumes" is an object, and has to be a list)"},
          Row{R"({"code": "x", "config": {"volumes": ["a", "b", 3]}})",
              R"("config.volumes[2]" is 3, and has to be a text)"},
          Row{R"({"code": "x", "config": {"volumes": ["a", ""]}})",
              R"("config.volumes[1]" has 0 characters, and has to have at least 1)"},
          Row{R"({"code": "x", "config": {"volumes": ["123456789"]}})",
              R"("config.volumes[0]" has 9 characters, and has to have at most 8)"},
          Row{R"({"code": "x", "config": {"volumes": [1, 2, 3, 4, 5]}})",
              R"("config.volumes" has 5 elements, and has to have at most 4)"},
          Row{R"({"code": "x", "config": {"scripts": {"start": 1}}})",
              R"("config.scripts.start" is 1, and has to be a text)"},
      }) {
    CAPTURE(row.value);
    CHECK(wrong(kRun, row.value) == row.message);
  }
  CHECK(wrong(R"({"items": {"items": {"type": "null"}}})", "[[null], [null, 1]]") ==
        R"("arguments[1][1]" is 1, and has to be null)");
}

TEST_CASE("each word of a schema counts, and those for other types do not") {
  struct Row {
    const char* schema;
    std::vector<const char*> good;
    std::vector<const char*> bad;
  };
  for (const Row& row : {
           Row{"true", {"1", "null"}, {}},
           Row{"false", {}, {"1", "null"}},
           Row{"{}", {"1", "[{}]"}, {}},
           Row{R"({"type": "integer"})",
               {"0", "-1", "3.0", "-0.0", "9007199254740992.0", "18446744073709551615"},
               {"1.5", "9007199254740994.0", "1e300", "-1e300", "\"1\"", "true", "null", "[1]"}},
           Row{R"({"type": "number"})", {"1", "1.5", "1e300"}, {"\"1\"", "null", "false"}},
           Row{R"({"type": "boolean"})", {"true", "false"}, {"0", "1", "null", "\"true\""}},
           Row{R"({"type": "null"})", {"null"}, {"0", "false", "\"\"", "[]", "{}"}},
           Row{R"({"type": ["string", "array"]})", {"\"\"", "[]"}, {"1", "{}", "null"}},
           Row{R"({"minimum": -1, "maximum": 2.5})",
               {"-1", "2.5", "-1.0", "\"9\"", "[9]"},
               {"-2", "3", "2.6", "18446744073709551615", "-1e300", "1e300"}},
           Row{R"({"minimum": 18446744073709551615})",
               {"18446744073709551615"},
               {"18446744073709551614", "-1", "0"}},
           Row{R"({"maximum": 9223372036854775807})",
               {"9223372036854775807", "-9223372036854775808"},
               {"9223372036854775808", "18446744073709551615"}},
           Row{R"({"minLength": 2, "maxLength": 3})",
               {"\"ab\"", "\"\u00e9\u00e9\u00e9\"", "\"\U0001F600\U0001F600\"", "5", "[1]"},
               {"\"a\"", "\"abcd\"", "\"\U0001F600\""}},
           Row{R"({"minItems": 1, "maxItems": 2})", {"[1]", "[1,2]", "\"\""}, {"[]", "[1,2,3]"}},
           Row{R"({"pattern": "b+$"})",
               {"\"abb\"", "\"b\"", "1"},
               {"\"abba\"", "\"\"", "\"b\\n\""}},
           Row{R"({"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"})",
               {"\"a\"", "\"a-b\""},
               {"\"\"", "\"-\"", "\"a-\"", "\"a\\nb\"", "\"a\\u0000\""}},
           Row{R"({"enum": ["a", 1, null, [2], {"b": 3}]})",
               {"\"a\"", "1", "1.0", "null", "[2]", "{\"b\": 3}"},
               {"\"b\"", "2", "false", "[]", "{}"}},
           Row{R"({"const": "a"})", {"\"a\""}, {"\"b\"", "1"}},
           Row{R"({"const": null})", {"null"}, {"0"}},
           Row{R"({"items": {"type": "string"}})",
               {"[]", "[\"a\"]", "\"a\"", "{}"},
               {"[\"a\", 1]"}},
           Row{R"({"items": false})", {"[]"}, {"[1]"}},
           Row{R"({"required": ["a", "b"]})",
               {"{\"b\": null, \"a\": 1, \"c\": 2}", "1"},
               {"{}", "{\"a\": 1}"}},
           Row{R"({"properties": {"a": {"type": "null"}, "b": false}})",
               {"{}", "{\"a\": null}", "{\"c\": 1}", "[]"},
               {"{\"a\": 1}", "{\"b\": 1}"}},
           Row{R"({"properties": {"a": true}, "additionalProperties": {"type": "null"}})",
               {"{\"a\": 1, \"b\": null}"},
               {"{\"b\": 1}"}},
           Row{R"({"additionalProperties": true})", {"{\"b\": 1}"}, {}},
           Row{R"({"anyOf": [{"minimum": 5}, {"maximum": 1}], "type": "number"})",
               {"5", "1"},
               {"3", "\"a\""}},
           Row{R"({"type": "integer", "nullable": true, "default": "x", "format": "x",
                   "$comment": 1, "$schema": 1, "title": 1, "description": 1, "examples": 1})",
               {"1"},
               {"null"}},
           // What stands beside a reference counts, too.
           Row{R"({"$ref": "#/$defs/a~1b", "maximum": 3, "$defs": {"a/b": {"minimum": 1}}})",
               {"1", "3"},
               {"0", "4"}},
           Row{R"({"$ref": "#/$defs/~01", "$defs": {"~1": {"type": "null"}}})", {"null"}, {"1"}},
           Row{R"({"type": ["object", "null"], "properties": {"next": {"$ref": "#"}},
                   "additionalProperties": false})",
               {"null", R"({"next": {"next": null}})"},
               {R"({"next": {"next": 1}})", R"({"next": {"nxt": null}})"}},
       }) {
    for (const char* value : row.good) {
      CAPTURE(row.schema);
      CAPTURE(value);
      CHECK(wrong(row.schema, value) == "");
    }
    for (const char* value : row.bad) {
      CAPTURE(row.schema);
      CAPTURE(value);
      CHECK(wrong(row.schema, value) != "");
    }
  }
}

TEST_CASE("of several schemas, the error is that of the one that comes nearest") {
  constexpr std::string_view kSchema = R"({"anyOf": [
    {"type": "string"},
    {"type": "object", "properties": {"image": {"type": "string"}}, "additionalProperties": false},
    {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
  ]})";
  CHECK(wrong(kSchema, R"({"imgae": "x"})") == R"("imgae" is not known; did you mean "image"?)");
  CHECK(wrong(kSchema, R"({"image": 1})") == R"("image" is 1, and has to be a text)");
  CHECK(wrong(kSchema, R"(["a", 1])") == R"("arguments[1]" is 1, and has to be a text or null)");
  CHECK(wrong(R"({"anyOf": [{"items": {"const": 1}}, {"enum": [[1]]}]})", "[2]") ==
        R"("arguments[0]" is 2, and has to be 1)");
  CHECK(wrong(kSchema, "1") == R"("arguments" is 1, and has to be a text or an object or a list)");
}

TEST_CASE("what a client wrote is shown so that it harms nobody") {
  CHECK(wrong(R"({"additionalProperties": false})", "{\"\\u001b[2J\\u0000\": 1}") ==
        R"("\x1b[2J\x00" is not known)");
  CHECK(wrong(R"({"enum": ["a"]})", "\"\\u001b\\n\"") ==
        R"("arguments" is "\x1b\x0a", which is none of a)");
  const std::string large(100000, 'x');
  CHECK(verdict(parse(R"({"enum": ["a"]})"), Json(large)) ==
        "\"arguments\" is \"" + std::string(60, 'x') + "...\", which is none of a");
  CHECK(verdict(parse(R"({"additionalProperties": false})"), Json{{large, 1}}) ==
        "\"" + std::string(60, 'x') + "...\" is not known");
  CHECK(verdict(parse(R"({"type": "string"})"), Json::array({large, large})).size() < 100);
}

TEST_CASE("a text that is long matches no pattern, and takes no stack") {
  const Json schema = parse(R"({"pattern": "^(a|b)*$"})");
  CHECK(verdict(schema, Json(std::string(256, 'a'))) == "");
  CHECK(verdict(schema, Json(std::string(257, 'a'))) != "");
  CHECK(verdict(schema, Json(std::string(4000000, 'a'))) != "");
}

TEST_CASE("what nests deep, or is large, comes to an end") {
  const Json schema = parse(R"({"type": ["array", "object", "null"], "items": {"$ref": "#"},
                                "additionalProperties": {"$ref": "#"}})");
  Json deep = nullptr;
  for (int i = 0; i < 30; ++i) {
    deep = i % 2 == 0 ? Json::array({deep}) : Json{{"a", deep}};
  }
  CHECK(verdict(schema, deep) == "");
  deep = parse(std::string(10000, '[') + std::string(10000, ']'));
  CHECK(verdict(schema, deep).find("nests deeper than 64 levels") != std::string::npos);

  const Json list(std::vector<std::nullptr_t>(40000));
  CHECK(verdict(parse(R"({"items": {"type": "null"}})"), list) == "");
  CHECK(verdict(schema, list) == "\"arguments\" is too large to be checked");
  CHECK(verdict(parse(R"({"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}})"), list) ==
        "\"arguments\" is too large to be checked");
  CHECK(verdict(parse(R"({"items": {"pattern": "^a"}})"),
                Json(std::vector<std::string>(1000, "a"))) == "");
  CHECK(verdict(parse(R"({"items": {"pattern": "^a"}})"),
                Json(std::vector<std::string>(9000, "a"))) ==
        "\"arguments\" is too large to be checked");

  // Twice as much work with each level.
  Json twice = {{"$ref", "#/$defs/30"}, {"$defs", {{"0", {{"type", "string"}}}}}};
  for (int i = 1; i <= 30; ++i) {
    const Json before = {{"$ref", fmt::format("#/$defs/{}", i - 1)}};
    twice["$defs"][fmt::format("{}", i)] = {{"anyOf", Json::array({before, before})}};
  }
  CHECK(verdict(twice, Json("a")) == "");
  CHECK(verdict(twice, Json(1)) == "\"arguments\" is too large to be checked");
  const Json loop = parse(
      R"({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}})");
  CHECK(verdict(loop, Json(1)) != "");
}

TEST_CASE("a schema that is wrong itself is told from a value that is") {
  struct Row {
    const char* schema;
    const char* value;
    const char* keyword;
  };
  for (const Row& row : {
           Row{"1", "1", "schema"},
           Row{"[]", "1", "schema"},
           Row{R"({"oneOf": []})", "1", "oneOf"},
           Row{R"({"patternProperties": {}})", "1", "patternProperties"},
           Row{R"({"\u001b": 1})", "1", "\\x1b"},
           Row{R"({"type": "text"})", "1", "type"},
           Row{R"({"type": 1})", "1", "type"},
           Row{R"({"type": ["integer", {}]})", "1", "type"},
           Row{R"({"enum": 1})", "1", "enum"},
           Row{R"({"minimum": "1"})", "1", "minimum"},
           Row{R"({"maximum": null})", "1", "maximum"},
           Row{R"({"minLength": -1})", "\"\"", "minLength"},
           Row{R"({"maxLength": "1"})", "\"\"", "maxLength"},
           Row{R"({"pattern": 1})", "\"\"", "pattern"},
           Row{R"({"pattern": "("})", "\"\"", "pattern"},
           Row{R"({"minItems": 1.5})", "[]", "minItems"},
           Row{R"({"maxItems": {}})", "[]", "maxItems"},
           Row{R"({"items": 1})", "[1]", "schema"},
           Row{R"({"properties": []})", "{}", "properties"},
           Row{R"({"properties": {"a": "string"}})", R"({"a": 1})", "schema"},
           Row{R"({"required": "a"})", "{}", "required"},
           Row{R"({"required": [1]})", "{}", "required"},
           Row{R"({"additionalProperties": 1})", R"({"a": 1})", "schema"},
           Row{R"({"anyOf": []})", "1", "anyOf"},
           Row{R"({"anyOf": {}})", "1", "anyOf"},
           Row{R"({"anyOf": [{"not": {}}, true]})", "1", "not"},
           Row{R"({"anyOf": [{"type": "string"}, {"not": {}}]})", "1", "not"},
           Row{R"({"$ref": 1})", "1", "$ref"},
           Row{R"({"$ref": ""})", "1", "$ref"},
           Row{R"({"$ref": "other.json"})", "1", "$ref"},
           Row{R"({"$ref": "#a"})", "1", "$ref"},
           Row{R"({"$ref": "#/$defs/none"})", "1", "$ref"},
           Row{R"({"$ref": "#/type/0", "type": ["integer"]})", "1", "$ref"},
       }) {
    CAPTURE(row.schema);
    const Json schema = parse(row.schema);
    const auto checked = check_schema(schema, parse(row.value), "arguments", schema);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().code == kBadSchema);
    CHECK(checked.error().message.find(fmt::format("has a \"{}\" that cannot be", row.keyword)) !=
          std::string::npos);
  }
}

}  // namespace
}  // namespace msb::server
