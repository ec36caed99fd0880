// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_stdio.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace msb::server {
namespace {

std::vector<std::string> lines_of(MessageLines& lines) {
  std::vector<std::string> all;
  while (const auto line = lines.next()) {
    all.push_back(line->too_long ? "TOO LONG" : line->text);
  }
  return all;
}

using Texts = std::vector<std::string>;

TEST_CASE("lines come whole, however they are cut") {
  const std::string text = "one\ntwo\r\n\nthree\n";
  for (std::size_t size = 1; size <= text.size(); ++size) {
    MessageLines lines;
    Texts all;
    for (std::size_t at = 0; at < text.size(); at += size) {
      lines.add(std::string_view(text).substr(at, size));
      for (std::string& line : lines_of(lines)) {
        all.push_back(std::move(line));
      }
    }
    CHECK(all == Texts{"one", "two", "", "three"});
    CHECK_FALSE(lines.finish());
  }
}

TEST_CASE("a line without an end is one at the end of the input") {
  MessageLines lines;
  lines.add("a\nb");
  CHECK(lines_of(lines) == Texts{"a"});
  const auto last = lines.finish();
  REQUIRE(last);
  CHECK(last->text == "b");
  CHECK_FALSE(lines.next());
}

TEST_CASE("a line that is too long is told once, and the next one is read") {
  for (const std::size_t size : {1, 3, 7, 100}) {
    const std::string text = "12345678\n" + std::string(50, 'x') + "\n123456789\nok\n";
    MessageLines lines(8);
    Texts all;
    for (std::size_t at = 0; at < text.size(); at += size) {
      lines.add(std::string_view(text).substr(at, size));
      for (std::string& line : lines_of(lines)) {
        all.push_back(std::move(line));
      }
    }
    CHECK(all == Texts{"12345678", "TOO LONG", "TOO LONG", "ok"});
  }
  MessageLines lines(8);
  lines.add("123456789");
  CHECK(lines_of(lines) == Texts{"TOO LONG"});
  lines.add("more");
  CHECK_FALSE(lines.finish());
}

}  // namespace
}  // namespace msb::server
