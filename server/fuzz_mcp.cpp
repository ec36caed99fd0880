// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a message of the Model Context Protocol. Whatever it is, it becomes one that is
// held against every tool and prompt, and is of one era or refused in one line, or an error in one
// line; and lines come out of the input as they went in. Seeds: tests/corpus/mcp.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "oci/base64.hpp"
#include "server/mcp.hpp"
#include "server/mcp_era.hpp"
#include "server/mcp_http.hpp"
#include "server/mcp_prompts.hpp"
#include "server/mcp_stdio.hpp"
#include "server/mcp_tools.hpp"

namespace {

using namespace msb;
using namespace msb::server;

void require(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
  }
}

void check_response(const Json& id, McpResult result) {
  const std::string text = to_text(response_message(id, std::move(result)));
  require(!text.contains('\n'), "a response is one line");
  const auto read = read_message(text);
  require(read && read->kind == McpMessage::Kind::kResponse, "a response can be read");
}

void check_arguments(const Json& arguments) {
  for (const Json& tool : mcp_tools()) {
    Json taken = arguments;
    const auto good = check_tool_arguments(tool, taken);
    if (!good) {
      require(good.error().message.contains(" takes:\n"), "a wrong call is told the right one");
      continue;
    }
    require(taken.is_object(), "arguments are an object");
    for (const Json& name : tool["inputSchema"]["required"]) {
      require(taken.contains(name.get<std::string>()), "what a tool needs is there");
    }
  }
}

// `text`: of the message, of which fields are made that may say anything.
void check_era(const McpMessage& message, std::string_view text) {
  const std::size_t piece = text.size() / 3;
  const McpFields any{text.substr(0, piece), text.substr(piece, piece), text.substr(2 * piece)};
  const auto alone = judge_era(message, nullptr);
  const auto contradicted = judge_era(message, &any);
  for (const auto* judged : {&alone, &contradicted}) {
    if (!*judged) {
      require(message.kind == McpMessage::Kind::kRequest || judged == &contradicted,
              "what has no answer is not refused");
      check_response(message.id, std::unexpected(judged->error()));
    }
  }
  if (alone != McpEra::kModern || message.kind != McpMessage::Kind::kRequest) {
    return;
  }
  std::string name;
  if (const auto found = message.params.find("name");
      found != message.params.end() && found->is_string()) {
    name = "=?base64?" + oci::encode_base64(found->get_ref<const std::string&>()) + "?=";
  }
  const McpFields right{kModernRevision, message.method, name};
  require(judge_era(message, &right) == McpEra::kModern, "fields that say the same change nothing");
  check_response(message.id, modern_result(message.method, Json::object()));
}

void check_message(const McpMessage& message) {
  require(message.params.is_object(), "parameters are an object");
  if (message.kind == McpMessage::Kind::kRequest) {
    require(message.id.is_string() || message.id.is_number_integer(),
            "a request's id is a text or a whole number");
    check_response(message.id, get_mcp_prompt(message.params));
  }
  check_arguments(message.params);
  if (const auto arguments = message.params.find("arguments"); arguments != message.params.end()) {
    check_arguments(*arguments);
  }
}

// However the input is cut.
void check_lines(std::string_view text) {
  constexpr std::size_t kLongest = 64;
  std::string whole;
  std::string pieces;
  for (auto [into, size] : {std::pair{&whole, text.size()}, {&pieces, std::size_t{7}}}) {
    MessageLines lines(kLongest);
    const auto note = [&](const MessageLines::Line& line) {
      require(line.text.size() <= kLongest, "no line is too long");
      *into += line.too_long ? "TOO LONG" : line.text;
      *into += '\n';
    };
    for (std::size_t at = 0; at < text.size(); at += size) {
      lines.add(text.substr(at, size));
      while (const auto line = lines.next()) {
        note(*line);
      }
    }
    if (const auto line = lines.finish()) {
      note(*line);
    }
  }
  require(whole == pieces, "lines do not depend on how they came");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check_lines(text);
  (void)read_accept(text);
  const auto message = read_message(text);
  if (message) {
    check_era(*message, text);
    check_message(*message);
    return 0;
  }
  const std::string& sentence = message.error().error.problem.message;
  require(!sentence.empty() && !sentence.contains('\n'), "what is wrong is said in one line");
  check_response(message.error().id, std::unexpected(message.error().error));
  return 0;
}
