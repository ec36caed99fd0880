// SPDX-License-Identifier: Apache-2.0
// What the parts of the server have in common.
#pragma once

#include <string>
#include <string_view>

#include "server/asio_io.hpp"
#include "server/async.hpp"
#include "server/exchange.hpp"
#include "server/keys.hpp"
#include "server/problem.hpp"
#include "server/request_log.hpp"
#include "server/sandboxes.hpp"
#include "server/settings.hpp"

namespace msb::server {

struct App {
  asio::io_context& io;
  Sandboxes& sandboxes;
  bool draining = false;      // nothing new is begun any more
  Signal drain;               // notified when that becomes so: streams end
  RequestLog* log = nullptr;  // null: nothing is logged
};

// The interfaces, each with the requests to its paths. They answer, also errors; what they throw is
// that the client has gone, or a mistake of ours.
//
// /api/v1/rpc and /api/v1/sandbox/...: microsandbox 0.2 (rpc.cpp)
Async<> serve_rpc(App& app, Exchange& exchange);
// /v1/... (v1.cpp)
Async<> serve_v1(App& app, Exchange& exchange);

}  // namespace msb::server
