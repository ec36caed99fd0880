// SPDX-License-Identifier: Apache-2.0
// The two eras of the Model Context Protocol: which one a message is of, and what the modern one
// wants besides (modelcontextprotocol.io/specification/2026-07-28/basic). Pure.
#pragma once

#include <expected>
#include <string_view>

#include "server/mcp.hpp"

namespace msb::server {

// What the fields of an HTTP request say of the message in its body; empty: they do not.
struct McpFields {
  std::string_view revision;  // MCP-Protocol-Version
  std::string_view method;    // Mcp-Method
  std::string_view name;      // Mcp-Name
};

// Whether a revision, or what stands in its place, is of the modern era: they are dates.
inline bool is_modern(std::string_view revision) {
  return revision >= kModernRevision;
}

// A message is modern when it says so in its "_meta", or its fields do. `fields`: null on standard
// input, where there are none. Fails for a modern request that cannot be served, however well it
// would do as a legacy one, and for fields with a revision that there is not.
std::expected<McpEra, McpError> judge_era(const McpMessage& message, const McpFields* fields);

// A result as the modern era has it: that it is complete, whose it is, and of what is the same for
// everybody how long it may be kept.
Json modern_result(std::string_view method, Json result);

// What this server is called, and all revisions that it speaks, the newest first.
Json server_info();
Json served_revisions();

}  // namespace msb::server
