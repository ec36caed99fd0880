// SPDX-License-Identifier: Apache-2.0
// The tools of the Model Context Protocol: what they are called and take, and what they do.
#pragma once

#include <string>
#include <string_view>

#include "server/mcp.hpp"
#include "server/sandboxes.hpp"

namespace msb::server {

// As tools/list gives them.
const Json& mcp_tools();

struct ToolCall {
  App& app;
  Key key;
  std::string session;  // its id; empty when there is none
  Json arguments;       // as the tool's schema has them
  McpProgress progress;
};

// What tools/call gives. Fails for a tool that is not there; what else is wrong with a call, and
// what fails in a sandbox, is a result that says so, for a model to read.
Async<McpResult> call_mcp_tool(ToolCall call, Json params);

// Whether these are arguments that the tool takes; one that is null counts as left out, and is
// taken out. Fails with a text that says what is wrong and how the tool is called. Pure.
Result<void> check_tool_arguments(const Json& tool, Json& arguments);

// Each gives the list of content of its result.
namespace tools {

using Content = Outcome<Json>;

// The life of sandboxes, and what runs in them (mcp_run.cpp).
Async<Content> start(ToolCall call);
Async<Content> stop(ToolCall call);
Async<Content> pause(ToolCall call);
Async<Content> resume(ToolCall call);
Async<Content> remove(ToolCall call);
Async<Content> list(ToolCall call);
Async<Content> get_metrics(ToolCall call);
Async<Content> get_logs(ToolCall call);
Async<Content> run_code(ToolCall call);
Async<Content> run_command(ToolCall call);

// Files in them (mcp_files.cpp).
Async<Content> write_file(ToolCall call);
Async<Content> read_file(ToolCall call);
Async<Content> list_files(ToolCall call);
Async<Content> remove_file(ToolCall call);

}  // namespace tools

// An argument that is a text; empty when it was left out.
std::string text_argument(const ToolCall& call, const char* name);
// The namespace that a call means.
std::string space_argument(const ToolCall& call);
// The sandbox that it names, and the same for one that it uses (find_usable()).
Outcome<Served> find_sandbox(const ToolCall& call);
Outcome<Served> find_usable_sandbox(const ToolCall& call);

}  // namespace msb::server
