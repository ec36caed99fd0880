// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_tools.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>
#include <vector>

#include "base/nearest_word.hpp"
#include "oci/printable.hpp"
#include "server/client_spec.hpp"
#include "server/mcp_content.hpp"
#include "server/run_results.hpp"
#include "server/schema.hpp"

namespace msb::server {

namespace {

// "hints": read-only, destructive, idempotent, open world. A property that is null is the one of
// kShared.
constexpr const char* kTools = R"json([
  {"name": "sandbox_start", "title": "Start a sandbox",
    "description": "Starts a sandbox: a small virtual machine with its own Linux, made from a container image. A new name makes a new one, for which config.image says of what; one that was stopped goes on with the files it had; one that runs stays as it is. An image that is not here yet is pulled first, which may take a minute.",
    "example": {"sandbox": "work", "config": {"image": "python:3.12-slim", "memory": 1024}, "ephemeral": true},
    "required": ["sandbox"],
    "properties": {"sandbox": null, "namespace": null, "config": null,
      "ephemeral": {"type": "boolean", "description": "Remove it with all its files when this session ends, or, over HTTP without a session, when it was not used for half an hour (config.idle_timeout). Else it stays until it is removed."},
      "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 255}, "description": "Words to know it by later: {\"task\": \"report\"}."}},
    "hints": [false, false, true, true]},
  {"name": "sandbox_stop", "title": "Stop a sandbox",
    "description": "Stops a sandbox. What runs in it ends; its files stay for the next start, unless it is ephemeral.",
    "example": {"sandbox": "work"},
    "required": ["sandbox"],
    "properties": {"sandbox": null, "namespace": null},
    "hints": [false, true, true, false]},
  {"name": "sandbox_remove", "title": "Remove a sandbox",
    "description": "Stops a sandbox and deletes it with all its files, for good.",
    "example": {"sandbox": "work"},
    "required": ["sandbox"],
    "properties": {"sandbox": null, "namespace": null},
    "hints": [false, true, false, false]},
  {"name": "sandbox_list", "title": "List sandboxes",
    "description": "Lists the sandboxes that there are, whether they run, and what they were given.",
    "example": {},
    "required": [],
    "properties": {"namespace": null},
    "hints": [true, false, true, false]},
  {"name": "sandbox_run_code", "title": "Run code in a sandbox",
    "description": "Runs code in a sandbox that runs, in an interpreter that goes on: variables, imports and functions stay for the next run. Gives what it printed line by line, the value of the last expression, and what was shown: figures of matplotlib come back as images. The image has to have python3, node or a shell.",
    "example": {"sandbox": "work", "language": "python", "code": "import math\nmath.sqrt(2)"},
    "required": ["sandbox", "code", "language"],
    "properties": {"sandbox": null, "namespace": null,
      "code": {"type": "string", "description": "The code: any number of lines."},
      "language": {"enum": ["python", "javascript", "node", "nodejs", "shell", "sh", "bash"], "description": "Its language."},
      "timeout": null,
      "session": {"type": "string", "minLength": 1, "maxLength": 64, "description": "Which interpreter of that language, by a name of your choice; \"main\" unless said. Another name begins with nothing defined, and runs beside the others."}},
    "hints": [false, true, false, true]},
  {"name": "sandbox_run_command", "title": "Run a command in a sandbox",
    "description": "Runs a program in a sandbox that runs and waits for its end. Gives its exit code and what it wrote line by line. There is no shell in between: arguments go into args, one by one; for pipes and the like run sh with -c.",
    "example": {"sandbox": "work", "command": "pip", "args": ["install", "requests"], "timeout": 120},
    "required": ["sandbox", "command"],
    "properties": {"sandbox": null, "namespace": null,
      "command": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "The program: a name that is looked for along PATH, or a path."},
      "args": {"type": "array", "maxItems": 65536, "items": {"type": "string"}, "description": "Its arguments."},
      "timeout": null,
      "workdir": {"type": "string", "maxLength": 4096, "description": "Where it starts, an absolute path; the sandbox's own unless said."},
      "envs": {"type": "array", "maxItems": 4096, "items": {"type": "string"}, "description": "Variables: [\"NAME=VALUE\"]."},
      "user": {"type": "string", "maxLength": 256, "description": "As whom: USER or USER:GROUP; the sandbox's own unless said."}},
    "hints": [false, true, false, true]},
  {"name": "sandbox_get_metrics", "title": "Measure sandboxes",
    "description": "Tells what a sandbox uses, or each of them: processors in percent, memory in MiB, disk in bytes.",
    "example": {"sandbox": "work"},
    "required": [],
    "properties": {"sandbox": null, "namespace": null},
    "hints": [true, false, true, false]},
  {"name": "sandbox_get_logs", "title": "Read a sandbox's log",
    "description": "Gives the last lines that the sandbox's own command wrote (config.exec, config.command or a script), also after it has ended. What sandbox_run_code and sandbox_run_command wrote was in their results.",
    "example": {"sandbox": "work", "tail": 50},
    "required": ["sandbox"],
    "properties": {"sandbox": null, "namespace": null,
      "tail": {"type": "integer", "minimum": 1, "maximum": 10000, "description": "How many lines; 100 unless said."}},
    "hints": [true, false, true, false]},
  {"name": "sandbox_write_file", "title": "Write a file in a sandbox",
    "description": "Writes a file in a sandbox that runs, and the directories that lead to it. What was there is replaced, as a whole or not at all.",
    "example": {"sandbox": "work", "path": "/app/main.py", "content": "print('hello')\n"},
    "required": ["sandbox", "path"],
    "properties": {"sandbox": null, "namespace": null, "path": null,
      "content": {"type": "string", "description": "What is to be in it; or"},
      "content_base64": {"type": "string", "description": "the same in base64, for what is no text."},
      "mode": {"type": "string", "pattern": "^[0-7]{3,4}$", "description": "Permissions of a new file, in octal: \"755\". \"644\" unless said."}},
    "hints": [false, true, true, false]},
  {"name": "sandbox_read_file", "title": "Read a file in a sandbox",
    "description": "Gives a file of a sandbox that runs: text as text, images as images, other bytes as a blob. At most 4 MiB at a time.",
    "example": {"sandbox": "work", "path": "/app/main.py"},
    "required": ["sandbox", "path"],
    "properties": {"sandbox": null, "namespace": null, "path": null,
      "offset": {"type": "integer", "minimum": 0, "maximum": 9007199254740991, "description": "The first byte; 0 unless said."},
      "length": {"type": "integer", "minimum": 1, "maximum": 4194304, "description": "The most bytes."}},
    "hints": [true, false, true, false]},
  {"name": "sandbox_list_files", "title": "List a directory in a sandbox",
    "description": "Lists what is in a directory of a sandbox that runs: names, types, sizes in bytes.",
    "example": {"sandbox": "work", "path": "/app"},
    "required": ["sandbox", "path"],
    "properties": {"sandbox": null, "namespace": null, "path": null},
    "hints": [true, false, true, false]},
  {"name": "sandbox_remove_file", "title": "Remove a file in a sandbox",
    "description": "Removes a file or an empty directory of a sandbox that runs; with \"recursive\" a directory and all that is in it.",
    "example": {"sandbox": "work", "path": "/app/old.py"},
    "required": ["sandbox", "path"],
    "properties": {"sandbox": null, "namespace": null, "path": null,
      "recursive": {"type": "boolean", "description": "A directory with all that is in it."}},
    "hints": [false, true, false, false]},
  {"name": "sandbox_pause", "title": "Pause a sandbox",
    "description": "Holds a sandbox that runs: it uses no processor until it is resumed, and keeps its memory.",
    "example": {"sandbox": "work"},
    "required": ["sandbox"],
    "properties": {"sandbox": null, "namespace": null},
    "hints": [false, false, true, false]},
  {"name": "sandbox_resume", "title": "Resume a sandbox",
    "description": "Lets a sandbox go on that is paused.",
    "example": {"sandbox": "work"},
    "required": ["sandbox"],
    "properties": {"sandbox": null, "namespace": null},
    "hints": [false, false, true, false]}
])json";

constexpr const char* kShared = R"({
  "sandbox": {"type": "string", "minLength": 1, "maxLength": 63, "description": "The sandbox's name: letters, digits, - and _."},
  "namespace": {"type": "string", "minLength": 1, "maxLength": 63, "description": "What the name belongs to. Leave it out unless you were told one."},
  "timeout": {"type": "number", "minimum": 0.001, "maximum": 31536000, "description": "Seconds after which it is ended; it has all the time it needs unless said."},
  "path": {"type": "string", "minLength": 1, "maxLength": 4095, "description": "An absolute path in the sandbox."}
})";

Json build(const Json& entry, const Json& shared) {
  Json properties = entry["properties"];
  for (auto& [name, property] : properties.items()) {
    if (property.is_null()) {
      property = shared[name];
    }
  }
  const auto& name = entry["name"].get_ref<const std::string&>();
  const Json& hints = entry["hints"];
  return {{"name", name},
          {"title", entry["title"]},
          {"description",
           fmt::format("{}\n\nExample: {} {}", entry["description"].get_ref<const std::string&>(),
                       name, to_text(entry["example"]))},
          {"inputSchema",
           {{"type", "object"},
            {"properties", std::move(properties)},
            {"required", entry["required"]},
            {"additionalProperties", false}}},
          {"annotations",
           {{"title", entry["title"]},
            {"readOnlyHint", hints[0]},
            {"destructiveHint", hints[1]},
            {"idempotentHint", hints[2]},
            {"openWorldHint", hints[3]}}}};
}

struct NamedTool {
  std::string_view name;
  Async<tools::Content> (*call)(ToolCall);
};
constexpr std::array<NamedTool, 14> kFunctions = {{{"sandbox_start", tools::start},
                                                   {"sandbox_stop", tools::stop},
                                                   {"sandbox_remove", tools::remove},
                                                   {"sandbox_list", tools::list},
                                                   {"sandbox_run_code", tools::run_code},
                                                   {"sandbox_run_command", tools::run_command},
                                                   {"sandbox_get_metrics", tools::get_metrics},
                                                   {"sandbox_get_logs", tools::get_logs},
                                                   {"sandbox_write_file", tools::write_file},
                                                   {"sandbox_read_file", tools::read_file},
                                                   {"sandbox_list_files", tools::list_files},
                                                   {"sandbox_remove_file", tools::remove_file},
                                                   {"sandbox_pause", tools::pause},
                                                   {"sandbox_resume", tools::resume}}};

// What a property is, in words: "a text", "one of python, shell".
std::string type_text(const Json& schema) {
  if (const auto choices = schema.find("enum"); choices != schema.end()) {
    return "one of " + to_text(*choices);
  }
  const Json& type = schema["type"];
  return type.is_array() ? type[0].get<std::string>() : type.get<std::string>();
}

// How a tool is called, for a model that did it wrong.
std::string usage(const Json& tool) {
  const Json& schema = tool["inputSchema"];
  const Json& required = schema["required"];
  const auto& description = tool["description"].get_ref<const std::string&>();
  std::string text = fmt::format("{} takes:\n", tool["name"].get_ref<const std::string&>());
  for (const auto& [name, property] : schema["properties"].items()) {
    const bool needed = std::ranges::find(required, Json(name)) != required.end();
    fmt::format_to(std::back_inserter(text), "- {} ({}, {})\n", name, type_text(property),
                   needed ? "required" : "optional");
  }
  return text + description.substr(description.rfind("Example: "));
}

Json failure(std::string_view message) {
  return {{"content", Json::array({text_content(fmt::format("Error: {}", message))})},
          {"isError", true}};
}

}  // namespace

const Json& mcp_tools() {
  static const Json list = [] {
    Json shared = Json::parse(kShared);
    shared["config"] = config_schema();
    shared["config"]["description"] =
        "What the sandbox is made of and may use. A new one needs its image.";
    Json built = Json::array();
    for (const Json& entry : Json::parse(kTools)) {
      built.push_back(build(entry, shared));
    }
    return built;
  }();
  return list;
}

Result<void> check_tool_arguments(const Json& tool, Json& arguments) {
  const Json& schema = tool["inputSchema"];
  if (arguments.is_object()) {
    std::vector<std::string> left_out;
    for (const auto& [name, value] : arguments.items()) {
      if (value.is_null()) {
        left_out.push_back(name);
      }
    }
    for (const std::string& name : left_out) {
      arguments.erase(name);
    }
  }
  auto good = check_schema(schema, arguments, "arguments", schema);
  return good ? good : fail("{}\n\n{}", good.error().message, usage(tool));
}

Async<McpResult> call_mcp_tool(ToolCall call, Json params) {
  const auto name = params.find("name");
  if (name == params.end() || !name->is_string()) {
    co_return mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid,
                         "\"name\" has to be the name of a tool");
  }
  const auto tool =
      std::ranges::find_if(mcp_tools(), [&](const Json& one) { return one["name"] == *name; });
  const auto& word = name->get_ref<const std::string&>();
  if (tool == mcp_tools().end()) {
    std::vector<std::string_view> names;
    for (const NamedTool& one : kFunctions) {
      names.push_back(one.name);
    }
    co_return mcp_refuse(McpCode::kInvalidParams, Reason::kNotFound, "there is no tool '{}'{}",
                         oci::printable(word), did_you_mean(word, names));
  }
  const auto given = params.find("arguments");
  call.arguments = given == params.end() || given->is_null() ? Json::object() : std::move(*given);
  if (auto good = check_tool_arguments(*tool, call.arguments); !good) {
    co_return failure(good.error().message);
  }
  if (std::string sandbox = text_argument(call, "sandbox"); !sandbox.empty()) {
    co_await call.app.sandboxes.refresh(call.key, space_argument(call), std::move(sandbox));
  }
  const auto* function = std::ranges::find(kFunctions, word, &NamedTool::name);
  auto content = co_await function->call(std::move(call));
  if (!content) {
    const Problem& problem = content.error();
    co_return failure(problem.retry_after ? fmt::format("{}; try again in {} s", problem.message,
                                                        *problem.retry_after)
                                          : problem.message);
  }
  co_return Json{{"content", std::move(*content)}, {"isError", false}};
}

std::string text_argument(const ToolCall& call, const char* name) {
  const auto found = call.arguments.find(name);
  return found != call.arguments.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string space_argument(const ToolCall& call) {
  std::string space = text_argument(call, "namespace");
  return space.empty() ? default_space(call.key) : space;
}

Outcome<Served> find_sandbox(const ToolCall& call) {
  return call.app.sandboxes.find(call.key, space_argument(call), text_argument(call, "sandbox"));
}

Outcome<Served> find_usable_sandbox(const ToolCall& call) {
  return find_usable(call.app.sandboxes, call.key, space_argument(call),
                     text_argument(call, "sandbox"));
}

}  // namespace msb::server
