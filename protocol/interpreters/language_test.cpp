// SPDX-License-Identifier: Apache-2.0
#include "protocol/interpreters/language.hpp"

#include <doctest/doctest.h>

#include "protocol/interpreters/drivers.hpp"

using namespace msb::protocol;

namespace {
constexpr std::size_t kMaxArgument = std::size_t{100} * 1024;  // execve(2) takes 128 KiB, with room
}

TEST_CASE("every driver is embedded and fits into an argument") {
  CHECK(kPythonDriver.contains("def serve():"));
  CHECK(kNodeDriver.contains("Runtime.evaluate"));
  CHECK(kShellStart.contains("exec sh -i"));
  CHECK(kShellDriver.contains("__msb_begin()"));
  for (const auto language : {Language::kPython, Language::kJavascript, Language::kShell}) {
    for (const std::string& argument : session_arguments(language)) {
      CHECK(argument.size() < kMaxArgument);
      CHECK_FALSE(argument.contains('\0'));
    }
  }
}

TEST_CASE("languages have names, and other names") {
  CHECK(language_named("python") == Language::kPython);
  CHECK(language_named("node") == Language::kJavascript);
  CHECK(language_named("bash") == Language::kShell);
  CHECK(name_of(Language::kJavascript) == "javascript");
  const auto unknown = language_named("cobol");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().message.contains("cobol"));
}

TEST_CASE("a label is parsed back, and nothing else is a label") {
  const auto label = encode_label(Language::kShell, "a.b_C-1");
  REQUIRE(label);
  CHECK(*label == "session:shell:a.b_C-1");
  CHECK(parse_label(*label) == SessionLabel{Language::kShell, "a.b_C-1"});
  for (const std::string_view other :
       {"", "session:", "session:python", "session:python:", "session:python:a:b", "session:node:a",
        "session:python:a b", "Session:python:a", "session:python:a\n"}) {
    CAPTURE(other);
    CHECK_FALSE(parse_label(other));
  }
  CHECK_FALSE(encode_label(Language::kPython, ""));
  CHECK_FALSE(encode_label(Language::kPython, std::string(65, 'a')));
  CHECK_FALSE(encode_label(Language::kPython, "a/b"));
}

TEST_CASE("a run of Python or JavaScript is framed JSON") {
  const auto bytes = encode_run(Language::kPython, 3, "a\n\"é\"");
  REQUIRE(bytes);
  const std::string json = R"({"code":"a\n\"é\"","id":3,"op":"run"})";
  CHECK(*bytes == std::string("\x26\0\0\0", 4) + json);
  CHECK_FALSE(encode_run(Language::kJavascript, 3, "\xff"));
  CHECK_FALSE(encode_run(Language::kPython, 3, std::string(kMaxCode + 1, 'a')));
}

TEST_CASE("a run of a shell is one line that no code can end") {
  const auto bytes = encode_run(Language::kShell, 3, "echo 'a\\b'\nexit 1");
  REQUIRE(bytes);
  CHECK(bytes->starts_with(R"(__msb_begin 3 'echo \0047a\\b\0047\nexit 1'; \command eval)"));
  CHECK(bytes->find('\n') == bytes->size() - 1);
  CHECK_FALSE(encode_run(Language::kShell, 3, std::string_view("a\0b", 3)));
  CHECK_FALSE(encode_run(Language::kShell, 3, std::string(kMaxShellCode + 1, 'a')));
}
