// SPDX-License-Identifier: Apache-2.0
// The server as a whole: what `msb server start` and `msb mcp` are.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace msb::server {

struct ServeOptions {
  std::string host = "127.0.0.1";  // an address; "localhost" is 127.0.0.1
  std::uint16_t port = 5555;       // 0: one that is free
  // A directory, whose Sandboxfile's sandboxes clients may start by name; or empty.
  std::string project;
  std::string key;   // one that is valid for as long as this server runs; or empty
  bool dev = false;  // no key is asked for; on loopback only
  int ready = -1;    // a descriptor that gets "ready URL\n" once it listens; or none
};

// Serves until SIGTERM or SIGINT: then it takes no more, lets what is under way come to its end,
// for 30 s at most, and leaves the sandboxes running, which the next one finds. Gives the exit
// status.
Result<int> serve(const ServeOptions& options);

// The Model Context Protocol on standard input and output, until the former ends: for the user who
// started it, with the same sandboxes.
Result<int> serve_mcp_on_stdio();

}  // namespace msb::server
