// SPDX-License-Identifier: Apache-2.0
// The JSON-RPC of microsandbox 0.2, as both generations of its clients speak it: the methods at
// /api/v1/rpc, and at the paths that the later one has besides.
#pragma once

#include "server/app.hpp"

namespace msb::server {

// {"jsonrpc", "error": {"code", "message", "data": {"code"}}, "id"}, where data.code is the number
// that the 0.2 line has for it.
HttpAnswer rpc_error_answer(const Problem& problem, const Json& id);

}  // namespace msb::server
