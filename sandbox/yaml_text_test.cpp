// SPDX-License-Identifier: Apache-2.0
#include "sandbox/yaml_text.hpp"

#include <doctest/doctest.h>

#include <string>

#include "sandbox/yaml_tree.hpp"

namespace msb::sandbox {
namespace {

using namespace std::string_literals;

std::string read_back(const std::string& scalar) {
  const auto root = parse_yaml("key: " + scalar + "\n");
  REQUIRE_MESSAGE(root, scalar, ": ", root.error().message);
  REQUIRE(root->members.size() == 1);
  CHECK(root->members[0].value.kind == YamlNode::Kind::kScalar);
  return root->members[0].value.text;
}

TEST_CASE("every text comes back from the scalar that it is written as") {
  for (const std::string& text :
       {""s,       " "s,           "a"s,          "a b"s,
        " a"s,     "a "s,          "null"s,       "~"s,
        "True"s,   "no"s,          "1.0"s,        "22:22"s,
        "a: b"s,   "a:"s,          "a #b"s,       "#a"s,
        "-"s,      "- a"s,         "[a]"s,        "{a}"s,
        "*a"s,     "&a"s,          "!a"s,         "|"s,
        ">"s,      "'"s,           "\""s,         "\\"s,
        "\\x41"s,  "%a"s,          "@a"s,         "`a"s,
        "? a"s,    "a\nb"s,        "a\n"s,        "\ta"s,
        "a\tb"s,   "a\rb"s,        "\x1b[2J"s,    "\x7f"s,
        "\0"s,     "a\0b"s,        "\u00e9"s,     "\u0085"s,
        "\u2028"s, "\ufeff"s,      "\U0001f600"s, "---"s,
        "..."s,    "./a"s,         "../a"s,       ".a"s,
        "/a:/b"s,  "python:3.12"s, "A=B C"s,      std::string(70'000, 'x')}) {
    CAPTURE(text);
    CHECK(read_back(yaml_scalar(text)) == text);
    CHECK(read_back(yaml_quoted(text)) == text);
  }
}

TEST_CASE("a scalar has quotation marks only where it needs them") {
  CHECK(yaml_scalar("python:3.12") == "python:3.12");
  CHECK(yaml_scalar("python app.py --port=80") == "python app.py --port=80");
  CHECK(yaml_scalar("/bin/sh") == "/bin/sh");
  CHECK(yaml_scalar("off") == "\"off\"");
  CHECK(yaml_scalar("8080") == "\"8080\"");
  CHECK(yaml_scalar("\u00e9\x01\n\"") == "\"\u00e9\\x01\\n\\\"\"");
}

TEST_CASE("a text of several lines is a literal, where that says it") {
  CHECK(yaml_literal("a\nb\n", "  ", "\n") == "|\n  a\n  b");
  CHECK(yaml_literal("a\n\n  b", "  ", "\r\n") == "|-\r\n  a\r\n\r\n    b");
  for (const char* text : {"", "\n", "\na\n", " a\n", "\ta\n", "a\n\n", "a\rb\n", "a\x01\n",
                           "a\u2028b\n", "a\xff\n"}) {
    CAPTURE(text);
    CHECK_FALSE(yaml_literal(text, "  ", "\n"));
  }
  for (const char* text : {"a\nb\n", "a\nb", "a\n\n\nb\n", "a\n  b\n\tc\n", "a \n b \n",
                           "# a\nb: c\n", "---\n...\n", "a\n   \nb\n", "\u00e9\n\"\n"}) {
    CAPTURE(text);
    const auto literal = yaml_literal(text, "  ", "\n");
    REQUIRE(literal);
    CHECK(read_back(*literal) == text);
  }
}

TEST_CASE("what a text of YAML may not have is found where it is") {
  struct Row {
    std::string text;
    std::size_t offset;
  };
  for (const Row& row :
       {Row{"a\0b"s, 1}, Row{"\xff"s, 0}, Row{"ab\xc3"s, 2}, Row{"\xc0\x80"s, 0},
        Row{"a\xed\xa0\x80"s, 1}, Row{"\xf4\x90\x80\x80"s, 0}, Row{"\xe0\x80\x80"s, 0},
        Row{"\u00e9\x1b"s, 2}, Row{"\x7f"s, 0}, Row{"\r"s, 0}, Row{"a\rb\n"s, 1}, Row{"\x04"s, 0},
        Row{"\ufffe"s, 0}, Row{"\u0081"s, 0}}) {
    CAPTURE(row.text);
    const auto bad = find_bad_character(row.text);
    REQUIRE(bad);
    CHECK(bad->offset == row.offset);
  }
  CHECK_FALSE(find_bad_character(""));
  CHECK_FALSE(find_bad_character("a\tb\r\n\u00e9\U0001f600\u2028"));
}

}  // namespace
}  // namespace msb::sandbox
