// SPDX-License-Identifier: Apache-2.0
// The prompts of the Model Context Protocol: texts that people begin a task with. Pure.
#pragma once

#include "server/mcp.hpp"

namespace msb::server {

// As prompts/list gives them.
const Json& mcp_prompts();

// What prompts/get gives.
McpResult get_mcp_prompt(const Json& params);

}  // namespace msb::server
