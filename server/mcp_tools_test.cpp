// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_tools.hpp"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/mcp_prompts.hpp"
#include "server/server_testing.hpp"

namespace msb::server {
namespace {

using namespace testing;

const Json& tool_named(std::string_view name) {
  for (const Json& tool : mcp_tools()) {
    if (tool["name"] == name) {
      return tool;
    }
  }
  FAIL("there is no tool " << name);
  return mcp_tools();
}

TEST_CASE("every tool is described, and its example is a right call") {
  std::set<std::string> names;
  for (const Json& tool : mcp_tools()) {
    const auto name = tool["name"].get<std::string>();
    CAPTURE(name);
    CHECK(names.insert(name).second);
    CHECK(tool["title"].is_string());
    CHECK(tool["inputSchema"]["type"] == "object");
    CHECK(tool["inputSchema"]["additionalProperties"] == false);
    for (const auto* hint :
         {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}) {
      CHECK(tool["annotations"][hint].is_boolean());
    }
    CHECK_FALSE(tool.contains("outputSchema"));
    for (const auto& [property, schema] : tool["inputSchema"]["properties"].items()) {
      CAPTURE(property);
      CHECK(schema.is_object());
      CHECK(schema["description"].is_string());
    }
    const auto text = tool["description"].get<std::string>();
    const std::string lead = "Example: " + name + " ";
    const auto example = text.find(lead);
    REQUIRE(example != std::string::npos);
    Json arguments = json(text.substr(example + lead.size()));
    CHECK(check_tool_arguments(tool, arguments));
  }
  for (const auto* name : {"sandbox_start", "sandbox_stop", "sandbox_run_code",
                           "sandbox_run_command", "sandbox_get_metrics"}) {
    CHECK(names.contains(name));
  }
}

TEST_CASE("every tool has a function") {
  Bed bed;
  for (const Json& tool : mcp_tools()) {
    // Known, for what is wrong are the arguments; or it was done, of nothing.
    const Json response =
        ask(bed, fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":"tools/call","params":
            {{"name":"{}","arguments":{{}}}}}})",
                             tool["name"].get<std::string>()));
    CHECK(response.contains("result"));
  }
}

TEST_CASE("tools take what 0.2 clients send") {
  for (const auto& [name, text] : std::vector<std::pair<std::string, std::string>>{
           {"sandbox_start", R"({"sandbox":"a","namespace":"default","config":{
               "image":"microsandbox/python","memory":512,"cpus":1,"volumes":[],"ports":[],
               "envs":["A=b"]}})"},
           {"sandbox_stop", R"({"sandbox":"a","namespace":"default"})"},
           {"sandbox_run_code",
            R"({"sandbox":"a","namespace":"default","code":"1","language":"nodejs"})"},
           {"sandbox_run_command",
            R"({"sandbox":"a","namespace":"default","command":"ls","args":["-l"]})"},
           {"sandbox_get_metrics", R"({"namespace":"*"})"}}) {
    CAPTURE(name);
    Json arguments = json(text);
    const auto good = check_tool_arguments(tool_named(name), arguments);
    CHECK_MESSAGE(good, (good ? "" : good.error().message));
  }
}

TEST_CASE("labels are those that the other interfaces take") {
  Bed bed;
  const Json response = ask(bed, R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":
      {"name":"sandbox_start","arguments":{"sandbox":"x","config":{"image":"a"},
      "labels":{"task":"one,two"}}}})");
  CHECK(response["result"]["isError"] == true);
  CHECK(response["result"]["content"][0]["text"].get<std::string>().contains("comma"));
}

TEST_CASE("an argument that is null counts as left out, unless it is needed") {
  Json arguments = json(R"({"sandbox":"a","path":"/","mode":null,"content":"x","namespace":null})");
  CHECK(check_tool_arguments(tool_named("sandbox_write_file"), arguments));
  CHECK(arguments == json(R"({"sandbox":"a","path":"/","content":"x"})"));
  arguments = json(R"({"sandbox":null})");
  const auto missing = check_tool_arguments(tool_named("sandbox_stop"), arguments);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().message.starts_with("\"sandbox\" is missing"));
}

TEST_CASE("an argument that is not known is told with the one that was meant") {
  Json arguments = json(R"({"sandbox":"a","comand":"ls"})");
  const auto wrong = check_tool_arguments(tool_named("sandbox_run_command"), arguments);
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().message.contains("\"comand\" is not known; did you mean \"command\"?"));
}

TEST_CASE("prompts have their arguments filled in, once") {
  const auto prompt = get_mcp_prompt(json(
      R"({"name":"analyse_data","arguments":{"sandbox_name":"{file}","file":"/data/a.csv"}})"));
  REQUIRE(prompt);
  const Json& message = (*prompt)["messages"][0];
  CHECK(message["role"] == "user");
  CHECK(message["content"]["type"] == "text");
  const auto text = message["content"]["text"].get<std::string>();
  CHECK(text.contains("\"/data/a.csv\" in the sandbox \"{file}\""));
  for (const Json& one : mcp_prompts()) {
    CHECK_FALSE(one.contains("text"));
    Json arguments = Json::object();
    for (const Json& argument : one["arguments"]) {
      arguments[argument["name"].get<std::string>()] = "word";
    }
    const auto filled = get_mcp_prompt({{"name", one["name"]}, {"arguments", arguments}});
    REQUIRE(filled);
    CHECK_FALSE((*filled)["messages"][0]["content"]["text"].get<std::string>().contains("{"));
  }
}

TEST_CASE("a wrong prompt is an error that names what is wrong") {
  for (const auto& [params, says] : std::vector<std::pair<std::string, std::string>>{
           {"{}", "name"},
           {R"({"name":"create_pyton_sandbox"})", "create_python_sandbox"},
           {R"({"name":"create_node_sandbox"})", "sandbox_name"},
           {R"({"name":"create_node_sandbox","arguments":[]})", "arguments"},
           {R"({"name":"create_node_sandbox","arguments":{"sandbox_name":1}})", "sandbox_name"},
           {R"({"name":"create_node_sandbox","arguments":{"sandbox_name":"a","x":"b"}})",
            "\"x\""}}) {
    CAPTURE(params);
    const auto prompt = get_mcp_prompt(json(params));
    REQUIRE_FALSE(prompt);
    CHECK(prompt.error().code == McpCode::kInvalidParams);
    CHECK(prompt.error().problem.message.contains(says));
  }
}

}  // namespace
}  // namespace msb::server
