// SPDX-License-Identifier: Apache-2.0
#include "sandbox/yaml_tree.hpp"

#include <doctest/doctest.h>

#include <string>

namespace msb::sandbox {
namespace {

std::string repeat(std::string_view part, std::size_t times) {
  std::string text;
  for (std::size_t i = 0; i < times; ++i) {
    text += part;
  }
  return text;
}

std::string error_of(std::string_view text) {
  const auto root = parse_yaml(text);
  return root ? "none" : error_at("F", root.error()).message;
}

TEST_CASE("a text's tree says where each node is, in lines and characters") {
  const std::string text = "\u00e9: \u00e9\r\nlist:\r\n  - a\r\n  - {b: [c]}\r\nempty:\r\n";
  const auto root = parse_yaml(text);
  REQUIRE(root);
  REQUIRE(root->members.size() == 3);
  CHECK(root->members[0].value.position == Position{1, 4});
  CHECK(root->members[0].value.offset == 4);
  CHECK(root->members[1].key.position == Position{2, 1});
  const auto& items = root->members[1].value.items;
  REQUIRE(items.size() == 2);
  CHECK(items[0].position == Position{3, 5});
  CHECK_FALSE(root->members[1].value.flow);
  CHECK(items[1].flow);
  CHECK(items[1].members[0].value.items[0].position == Position{4, 10});
  CHECK(text.substr(items[1].offset, 4) == "{b: ");
  CHECK(root->members[2].value.kind == YamlNode::Kind::kNull);
  CHECK(root->find("list") == &root->members[1]);
  CHECK(root->find("none") == nullptr);
}

TEST_CASE("trees are the same when they mean the same") {
  const auto same = [](std::string_view a, std::string_view b) {
    const auto left = parse_yaml(a);
    const auto right = parse_yaml(b);
    REQUIRE(left);
    REQUIRE(right);
    return left->same(*right);
  };
  CHECK(same("{a: [b, c]}", "# x\na:\n  - 'b'\n  - \"c\"\n"));
  CHECK_FALSE(same("a: b", "a: c"));
  CHECK_FALSE(same("a: b", "b: b"));
  CHECK_FALSE(same("a:", "a: ''"));
  CHECK_FALSE(same("a: [b]", "a: [b, b]"));
}

TEST_CASE("what is no YAML, or more of it than is taken, is said with its place") {
  CHECK(error_of("a: [b") == "F:1:6: it is no YAML: end of sequence flow not found");
  CHECK(error_of("a: 1\nb: 2\na: 3\n") == "F:3:1: \"a\" is there a second time");
  CHECK(error_of("a: {b: 1, b: 2}") == "F:1:11: \"b\" is there a second time");
  CHECK(error_of("a: &x b\nc: *x\n") ==
        "F:1:4: an anchor is not supported; write out what it stands for where it is used");
  CHECK(error_of("a: !!python/object b") ==
        "F:1:4: the tag 'tag:yaml.org,2002:python/object' is not supported; remove it");
  CHECK(error_of("a: b\n---\nc: d\n") == "F:2:1: there is a second document; a Sandboxfile is one");
  CHECK(error_of("null: a") == "F:1:1: null is no name; write it in quotation marks");
  CHECK(error_of("[a]: b") == "F:1:1: a list or map is no name");
  CHECK(error_of("\xef\xbb\xbf") == "F:1:1: it begins with a byte order mark; save it without");
  CHECK(error_of("a:\n \xff") == "F:2:2: it is not UTF-8 here");
  CHECK(error_of(std::string("a\0", 2)).starts_with("F:1:2: the character U+0000"));
  CHECK(error_of(std::string(kMaxYaml + 1, ' ')) == "F: it is larger than 1048576 bytes");
  CHECK(error_of(std::string(kMaxYaml, ' ')) == "none");
  CHECK(error_of("a: 'b").find('\n') == std::string::npos);
}

TEST_CASE("nothing that is nested deeply, aliased or numerous costs much") {
  for (const char* part : {"[", "{", "- ", "? ", "[a, ", "{a: ", "[? "}) {
    CAPTURE(part);
    const auto root = parse_yaml(repeat(part, 100'000));
    REQUIRE_FALSE(root);
    CHECK(root.error().position.line == 1);
  }
  CHECK(error_of(repeat("[", 100'000)).ends_with("it is nested deeper than 16 levels"));
  CHECK(error_of("a: &a [b]\nb: &b [*a, *a]\n").find("anchor") != std::string::npos);
  CHECK(error_of(repeat("- a\n", 200'000)).ends_with("there are more than 100000 values"));
}

TEST_CASE("a text without a document is null") {
  for (const char* text : {"", "\n", "# comment", "---\n", "~", "null"}) {
    CAPTURE(text);
    const auto root = parse_yaml(text);
    REQUIRE(root);
    CHECK(root->kind == YamlNode::Kind::kNull);
  }
}

TEST_CASE("a quotation mark that is never closed does not swallow the rest") {
  for (const char* text :
       {"a:\n  b: \"echo\n  c: d\n", "a:\n  b: 'it''s\n  c: d\n", "a: \"x\\\"\n"}) {
    const auto tree = parse_yaml(text);
    REQUIRE_FALSE(tree);
    CHECK(tree.error().message.find("never closed") != std::string::npos);
  }
  CHECK(parse_yaml("a: \"x\\\"y\"\nb: 'it''s'\nc: it's\n'd e': \"\"\n"));
}

}  // namespace
}  // namespace msb::sandbox
