// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_prompts.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/nearest_word.hpp"
#include "oci/printable.hpp"
#include "server/schema.hpp"

namespace msb::server {

namespace {

// "text" is ours: what is in braces is the argument of that name.
constexpr const char* kPrompts = R"([
  {"name": "create_python_sandbox", "title": "Create a Python sandbox",
    "description": "Starts a sandbox with Python and shows that it works.",
    "arguments": [{"name": "sandbox_name", "description": "What to call it.", "required": true}],
    "text": "Create a Python sandbox named \"{sandbox_name}\": call sandbox_start with the image \"microsandbox/python\", or \"python:3.12-slim\" when that is not to be had. Then run a line of Python in it with sandbox_run_code that prints the version, and tell me what it said. Variables and imports stay from one run to the next; programs such as pip are run with sandbox_run_command."},
  {"name": "create_node_sandbox", "title": "Create a Node.js sandbox",
    "description": "Starts a sandbox with Node.js and shows that it works.",
    "arguments": [{"name": "sandbox_name", "description": "What to call it.", "required": true}],
    "text": "Create a Node.js sandbox named \"{sandbox_name}\": call sandbox_start with the image \"microsandbox/node\", or \"node:22-slim\" when that is not to be had. Then run a line of JavaScript in it with sandbox_run_code and the language \"javascript\" that prints the version, and tell me what it said. What is declared stays from one run to the next; programs such as npm are run with sandbox_run_command."},
  {"name": "analyse_data", "title": "Analyse a file of data",
    "description": "Looks into a file in a sandbox and tells what is in it, with figures.",
    "arguments": [
      {"name": "sandbox_name", "description": "A sandbox with Python.", "required": true},
      {"name": "file", "description": "The absolute path of the file in it.", "required": true}],
    "text": "Analyse the file \"{file}\" in the sandbox \"{sandbox_name}\". First see what it is: its size and first lines, with sandbox_run_command. Then read it in Python with sandbox_run_code, with pandas if that is there (else install it with pip), and say what the columns mean, what is missing or wrong, and what is remarkable. Draw the two or three figures that show most, with matplotlib: they come back as images. Keep what you compute in variables, for later questions."}
])";

const Json& prompts() {
  static const Json all = Json::parse(kPrompts);
  return all;
}

// The JSON Schema that a prompt's arguments amount to.
Json schema_of(const Json& prompt) {
  constexpr unsigned kLongest = 4096;
  Json schema = {{"type", "object"},
                 {"properties", Json::object()},
                 {"required", Json::array()},
                 {"additionalProperties", false}};
  for (const Json& argument : prompt["arguments"]) {
    schema["properties"][argument["name"].get<std::string>()] = {
        {"type", "string"}, {"minLength", 1U}, {"maxLength", kLongest}};
    if (argument["required"] == true) {
      schema["required"].push_back(argument["name"]);
    }
  }
  return schema;
}

// In one pass, so that what an argument says is not looked through again.
std::string fill_in(std::string_view text, const Json& arguments) {
  std::string filled;
  while (!text.empty()) {
    const std::size_t brace = std::min(text.find('{'), text.size());
    filled += text.substr(0, brace);
    text.remove_prefix(brace);
    const std::size_t end = text.find('}');
    if (end == std::string_view::npos) {
      break;
    }
    filled += arguments.at(std::string(text.substr(1, end - 1))).get<std::string>();
    text.remove_prefix(end + 1);
  }
  return filled += text;
}

}  // namespace

const Json& mcp_prompts() {
  static const Json list = [] {
    Json shown = prompts();
    for (Json& prompt : shown) {
      prompt.erase("text");
    }
    return shown;
  }();
  return list;
}

McpResult get_mcp_prompt(const Json& params) {
  const auto name = params.find("name");
  if (name == params.end() || !name->is_string()) {
    return mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid,
                      "\"name\" has to be the name of a prompt");
  }
  const auto prompt =
      std::ranges::find_if(prompts(), [&](const Json& one) { return one["name"] == *name; });
  if (prompt == prompts().end()) {
    std::vector<std::string> names;
    for (const Json& one : prompts()) {
      names.push_back(one["name"].get<std::string>());
    }
    const auto& word = name->get_ref<const std::string&>();
    return mcp_refuse(McpCode::kInvalidParams, Reason::kNotFound, "there is no prompt '{}'{}",
                      oci::printable(word), did_you_mean(word, names));
  }
  const auto given = params.find("arguments");
  const Json arguments = given == params.end() || given->is_null() ? Json::object() : *given;
  const Json schema = schema_of(*prompt);
  if (auto good = check_schema(schema, arguments, "arguments", schema); !good) {
    return mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid, "{}", good.error().message);
  }
  const std::string text = fill_in((*prompt)["text"].get_ref<const std::string&>(), arguments);
  Json message = {{"role", "user"}, {"content", {{"type", "text"}, {"text", text}}}};
  return Json{{"description", (*prompt)["description"]},
              {"messages", Json::array({std::move(message)})}};
}

}  // namespace msb::server
