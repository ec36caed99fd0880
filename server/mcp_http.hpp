// SPDX-License-Identifier: Apache-2.0
// The Model Context Protocol over HTTP: its "Streamable HTTP" transport, at /mcp
// (modelcontextprotocol.io/specification/2026-07-28/basic/transports), each request by itself; and
// as it was up to 2025-11-25, with sessions, and without, as clients of the 0.2 line.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "server/app.hpp"
#include "server/async.hpp"
#include "server/exchange.hpp"
#include "server/keys.hpp"
#include "server/mcp.hpp"
#include "server/problem.hpp"

namespace msb::server {

// The sessions of clients, by their ids. One ends when its client says so, with the server, and
// after half an hour in which nothing came; what runs in it is cancelled then, and its ephemeral
// sandboxes are removed.
class McpSessions {
 public:
  static constexpr std::size_t kMost = 1000;
  static constexpr std::size_t kMostOfKey = 100;
  static constexpr std::chrono::minutes kIdle{30};

  struct Session;
  explicit McpSessions(App& app) : app_(app) {}
  McpSessions(const McpSessions&) = delete;
  McpSessions& operator=(const McpSessions&) = delete;

  // A new one of the key's. Where there are too many, one that was left alone for a minute and has
  // nothing to lose makes room; fails with kFull when there is none.
  Outcome<std::shared_ptr<Session>> open(const Key& key);
  // Fails with kNotFound also for another key's.
  Outcome<std::shared_ptr<Session>> find(const Key& key, std::string_view id) const;
  Async<> end(std::shared_ptr<Session> session);
  // With the server: waits for what runs in them, but not for long, and ends all.
  Async<> end_all(Signal::Clock::time_point deadline);

 private:
  void begin_end(const std::shared_ptr<Session>& session);
  Async<> watch(std::shared_ptr<Session> session);
  std::shared_ptr<Session> find_abandoned(const Key& key, bool own) const;
  [[nodiscard]] bool has_sandboxes(const Session& session) const;

  App& app_;
  std::map<std::string, std::shared_ptr<Session>, std::less<>> sessions_;
};

// What a client takes, by its Accept field (RFC 9110, section 12.5.1). None, and "*/*", is JSON, as
// those of the 0.2 line send it. Pure.
struct Acceptable {
  bool json = false;
  bool events = false;  // text/event-stream
};
Acceptable read_accept(std::string_view field);

Async<> serve_mcp(App& app, McpSessions& sessions, Exchange& exchange);

}  // namespace msb::server
