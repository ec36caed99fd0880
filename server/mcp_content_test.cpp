// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_content.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "oci/base64.hpp"
#include "server/run_results.hpp"
#include "server/server_testing.hpp"

namespace msb::server {
namespace {

using testing::json;

TEST_CASE("output is lines in the order of their ends, of both streams") {
  OutputLines lines;
  lines.add(MSB_STREAM_STDOUT, "one\ntw");
  lines.add(MSB_STREAM_STDERR, "error\r\n");
  lines.add(MSB_STREAM_STDOUT, "o\n\nlast");
  lines.add_apart(MSB_STREAM_STDOUT, "value");
  CHECK(lines.take() ==
        json(R"([{"stream":"stdout","text":"one"},{"stream":"stderr","text":"error"},
      {"stream":"stdout","text":"two"},{"stream":"stdout","text":""},
      {"stream":"stdout","text":"last"},{"stream":"stdout","text":"value"}])"));
  CHECK_FALSE(lines.truncated());
}

TEST_CASE("output is kept as long as there is room, and an error after it all the same") {
  for (const std::string& line : {std::string("\n"), std::string(1000, 'x') + "\n",
                                  std::string(1 << 20, '\x01'), std::string(100, '\xff') + "\n"}) {
    OutputLines lines;
    std::string piece;
    while (piece.size() < (1U << 20)) {
      piece += line;
    }
    for (int i = 0; i < 20; ++i) {
      lines.add(MSB_STREAM_STDOUT, piece);
    }
    CHECK(lines.truncated());
    lines.add_reserved(MSB_STREAM_STDERR, "Error: it failed");
    const Json kept = lines.take();
    const auto text = kept.dump(4, ' ', false, Json::error_handler_t::replace);
    CHECK(text.size() > OutputLines::kMost / 2);
    CHECK(text.size() <= OutputLines::kMost + OutputLines::kReserved);
    CHECK(kept.back() == json(R"({"stream":"stderr","text":"Error: it failed"})"));
  }
}

CodeResult result_with(std::vector<CodeValue> values) {
  return {{{"status", "success"}}, std::move(values)};
}

TEST_CASE("images that code shows are images, and other values the text that says most") {
  const std::string png = oci::encode_base64("\x89PNG");
  const Json content =
      code_content(result_with({{false, {{"text/plain", "<Figure>"}, {"image/png", png + "\n"}}},
                                {true, {{"text/plain", "<T at 1>"}, {"text/html", "<b>x</b>"}}},
                                {true, {{"text/plain", "a table"}, {"text/html", "<table>"}}},
                                {true, {{"text/plain", "7"}}},
                                {false, {{"text/html", "<i>"}, {"text/markdown", "*m*"}}},
                                {false, {{"image/png", "no base64!"}}}}));
  REQUIRE(content.size() == 5);
  CHECK(content[0] == json(R"({"type":"text","text":"{\n  \"status\": \"success\"\n}"})"));
  CHECK(content[1] == Json{{"type", "image"}, {"data", png}, {"mimeType", "image/png"}});
  CHECK(content[2] == json(R"({"type":"text","text":"text/html:\n<b>x</b>"})"));
  CHECK(content[3] == json(R"({"type":"text","text":"text/markdown:\n*m*"})"));
  CHECK(content[4]["type"] == "text");
}

TEST_CASE("values for which there is no room are left out, and that is told") {
  const std::string large = oci::encode_base64(std::string(9 << 20, 'x'));
  const Json content = code_content(result_with({{false, {{"image/png", large}}},
                                                 {false, {{"image/png", large}}},
                                                 {false, {{"image/png", large}}},
                                                 {false, {{"image/png", "AAAA"}}}}));
  REQUIRE(content.size() == 4);
  CHECK(content[2]["data"] == "AAAA");
  CHECK(content[3]["text"].get<std::string>().contains("2 more"));
}

FilePiece file(std::string bytes, std::uint64_t size = 0, std::uint64_t offset = 0) {
  const std::uint64_t length = bytes.size();
  return {"sandbox://default/a/f", std::move(bytes), offset, std::max(size, length)};
}

TEST_CASE("a file is text, an image, or a blob") {
  CHECK(file_content(file("h\xc3\xa9\n")) == json(R"([{"type":"text","text":"h\u00e9\n"}])"));
  CHECK(file_content(file("")) == json(R"([{"type":"text","text":""}])"));
  for (const auto& [bytes, type] : std::vector<std::pair<std::string, std::string>>{
           {"\x89PNG\r\n\x1a\n...", "image/png"},
           {"\xff\xd8\xff\xe0", "image/jpeg"},
           {"GIF89a", "image/gif"},
           {std::string("RIFF\0\0\0\0WEBP", 12), "image/webp"}}) {
    const Json content = file_content(file(bytes));
    CHECK(content[0]["type"] == "image");
    CHECK(content[0]["mimeType"] == type);
    CHECK(content[0]["data"] == oci::encode_base64(bytes));
  }
  for (const std::string& bytes :
       {std::string("a\0b", 3), std::string("\xff\xfe"), std::string("caf\xc3")}) {
    const Json content = file_content(file(bytes));
    REQUIRE(content.size() == 1);
    CHECK(content[0]["type"] == "resource");
    CHECK(content[0]["resource"]["uri"] == "sandbox://default/a/f");
    CHECK(content[0]["resource"]["blob"] == oci::encode_base64(bytes));
  }
}

TEST_CASE("a file that goes on says where, and not in the middle of a character") {
  const Json content = file_content(file("caf\xc3", 100, 20));
  REQUIRE(content.size() == 2);
  CHECK(content[0]["text"] == "caf");
  CHECK(content[1]["text"].get<std::string>().contains("\"offset\": 23"));
  const Json image = file_content(file("\x89PNG\r\n\x1a\n", 100));
  CHECK(image[0]["type"] == "resource");
  CHECK(image[1]["text"].get<std::string>().contains("\"offset\": 8"));
}

}  // namespace
}  // namespace msb::server
