// SPDX-License-Identifier: Apache-2.0
// The JSON-RPC of microsandbox 0.2, as both generations of its clients speak it: the methods at
// /api/v1/rpc, and at the paths that the later one has besides.
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "server/app.hpp"

namespace msb::server {

// {"jsonrpc", "error": {"code", "message", "data": {"code"}}, "id"}, where data.code is the number
// that the 0.2 line has for it.
HttpAnswer rpc_error_answer(const Problem& problem, const Json& id);

// A call of a method that there is, with parameters as that takes them.
struct RpcCall {
  std::string method;
  Json params;
  Json id;  // a text, a number or null
};
// `only`: the method that the path of the call is for; empty: all. Fails with its answer.
std::expected<RpcCall, HttpAnswer> read_rpc_call(std::string_view body, std::string_view only);
HttpAnswer rpc_answer(const RpcCall& call, Json result, std::string_view only);

}  // namespace msb::server
