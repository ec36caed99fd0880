// SPDX-License-Identifier: Apache-2.0
#include "launcher/last_words.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

namespace msb::launcher {
namespace {

std::string numbered(int from, int to) {
  std::string text;
  for (int i = from; i < to; ++i) {
    text += "line " + std::to_string(i) + "\n";
  }
  return text;
}

TEST_CASE("the last lines are shown where nothing says what went wrong") {
  CHECK(last_words("").empty());
  CHECK(last_words("\n \n\t\n").empty());
  CHECK(last_words("one\n\ntwo") == "\n  one\n  two");
  const std::string text = last_words(numbered(0, 100));
  CHECK(std::ranges::count(text, '\n') == 16);
  CHECK(text.starts_with("\n  line 84\n"));
  CHECK(text.ends_with("\n  line 99"));
}

TEST_CASE("what went wrong is where it begins, however much follows") {
  const std::string text =
      last_words(numbered(0, 50) + "[ 1.5] Kernel panic - not syncing: x\n" + numbered(50, 200));
  CHECK(text.starts_with("\n  [ 1.5] Kernel panic - not syncing: x\n  line 50\n"));
  CHECK(std::ranges::count(text, '\n') == 16);
}

TEST_CASE("a guest's bytes do nothing to the terminal that shows them") {
  const std::string text = last_words("\x1b[2Jgone\n" + std::string(5000, 'a') + "\nb\xff\x9b");
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(text.size() < 500);
  CHECK(text.find("\n  b??") != std::string::npos);
}

}  // namespace
}  // namespace msb::launcher
