// SPDX-License-Identifier: Apache-2.0
#include "launcher/log_lines.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace msb::launcher {
namespace {

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::vector<std::string> texts(const std::string& lines, std::string_view stream = "stdout") {
  std::vector<std::string> result;
  for (std::string_view rest = lines; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    REQUIRE(end != std::string_view::npos);
    const auto line = nlohmann::json::parse(rest.substr(0, end));
    CHECK(line.size() == 3);
    CHECK(line.at("stream") == stream);
    CHECK(line.at("time_ms") == 5);
    result.push_back(line.at("text"));
    rest.remove_prefix(end + 1);
  }
  return result;
}

using Texts = std::vector<std::string>;

TEST_CASE("output is cut at newlines, wherever it was cut before") {
  const std::string all = "one\n\ntwo \"quoted\"\\\nlast\x01\xc3\xa4\n";
  for (std::size_t cut = 0; cut <= all.size(); ++cut) {
    LogLines log;
    std::string lines = log.append(MSB_STREAM_STDOUT, bytes(all.substr(0, cut)), 5);
    lines += log.append(MSB_STREAM_STDOUT, bytes(all.substr(cut)), 5);
    CHECK(texts(lines) == Texts{"one\n", "\n", "two \"quoted\"\\\n", "last\x01\xc3\xa4\n"});
    CHECK_FALSE(log.partial());
    CHECK(log.finish(5).empty());
  }
}

TEST_CASE("the two streams do not mix") {
  LogLines log;
  CHECK(log.append(MSB_STREAM_STDOUT, bytes("out"), 5).empty());
  CHECK(texts(log.append(MSB_STREAM_STDERR, bytes("err\n"), 5), "stderr") == Texts{"err\n"});
  CHECK(texts(log.append(MSB_STREAM_STDOUT, bytes("put\n"), 5)) == Texts{"output\n"});
}

TEST_CASE("a prompt is told by flush, and what follows it apart") {
  LogLines log;
  CHECK(log.append(MSB_STREAM_STDOUT, bytes("$ "), 5).empty());
  CHECK(log.partial());
  CHECK(texts(log.flush(5)) == Texts{"$ "});
  CHECK_FALSE(log.partial());
  CHECK(log.flush(5).empty());
  CHECK(texts(log.append(MSB_STREAM_STDOUT, bytes("ls\n"), 5)) == Texts{"ls\n"});
}

TEST_CASE("a line without end is cut into pieces, and never inside a character") {
  constexpr std::size_t kMost = LogLines::kLongest;
  for (std::size_t before = 0; before < 4; ++before) {
    LogLines log;
    std::string text(kMost - before, 'x');
    text += "\xf0\x9f\x98\x80";  // U+1F600
    text += std::string(kMost, 'y');
    std::string lines = log.append(MSB_STREAM_STDOUT, bytes(text), 5);
    lines += log.finish(5);
    const Texts pieces = texts(lines);
    std::string joined;
    for (const std::string& piece : pieces) {
      CHECK(piece.size() <= kMost);
      joined += piece;
    }
    CHECK(pieces.size() == 3);
    CHECK((joined == text));
  }
  LogLines log;
  const std::string exact = std::string(kMost - 1, 'x') + "\n";
  CHECK(texts(log.append(MSB_STREAM_STDOUT, bytes(exact), 5)) == Texts{exact});
}

TEST_CASE("half a character waits for its other half, and not for ever") {
  LogLines log;
  CHECK(log.append(MSB_STREAM_STDOUT, bytes("a\xc3"), 5).empty());
  CHECK(texts(log.flush(5)) == Texts{"a"});
  CHECK_FALSE(log.partial());
  CHECK(log.append(MSB_STREAM_STDOUT, bytes("\xa4"), 5).empty());
  CHECK(texts(log.flush(5)) == Texts{"\xc3\xa4"});
  CHECK(log.append(MSB_STREAM_STDOUT, bytes("\xe2\x82"), 5).empty());
  CHECK(log.flush(5).empty());
  CHECK(texts(log.finish(5)) == Texts{"\xef\xbf\xbd"});
}

TEST_CASE("what is no UTF-8 is replaced, and still valid JSON") {
  LogLines log;
  CHECK(texts(log.append(MSB_STREAM_STDOUT,
                         bytes("a\xff"
                               "b\xc0\n"),
                         5)) == Texts{"a\xef\xbf\xbd"
                                      "b\xef\xbf\xbd\n"});
  std::string all;
  for (int byte = 0; byte < 256; ++byte) {
    all += static_cast<char>(byte);
  }
  std::string lines = log.append(MSB_STREAM_STDOUT, bytes(all), 5);
  lines += log.finish(5);
  CHECK(texts(lines).size() == 2);
  // Continuations alone never wait, nor are they cut for ever.
  const std::string tails(LogLines::kLongest * 2, '\x80');
  CHECK(texts(log.append(MSB_STREAM_STDOUT, bytes(tails), 5)).size() == 2);
}

}  // namespace
}  // namespace msb::launcher
