// SPDX-License-Identifier: Apache-2.0
// `msb server` and `msb mcp`
#pragma once

#include <string>

#include "base/result.hpp"
#include "cli/context.hpp"
#include "server/serve.hpp"

namespace msb::cli {

struct ServerWords {
  server::ServeOptions serve;
  bool detach = false;
  bool reset_key = false;
};

struct KeygenWords {
  std::string expire;  // 3h; empty: never
  std::string space;   // --namespace; empty: all
  std::string name;
  std::string max_memory;
  std::string max_lifetime;
  std::uint32_t max_sandboxes = 0;  // 0: as many as the server allows
  bool read_only = false;
};

struct ServerLogWords {
  bool follow = false;
  std::string tail;  // lines; empty: all
};

// In the foreground until it is told to end; with `detach` it goes on in the background. Gives the
// exit status.
Result<int> start_server(const ServerWords& words);
Result<int> serve_mcp();
Result<void> stop_server();
// Gives the exit status: 0 when one runs.
Result<int> show_server(Format format);
Result<int> show_server_log(const ServerLogWords& words);
Result<void> list_served(Format format);
Result<void> remove_served(const std::string& name, const std::string& space);
Result<void> make_key(const KeygenWords& words, Format format);
Result<void> list_keys(Format format);
Result<void> revoke_key(const std::string& id);

}  // namespace msb::cli
