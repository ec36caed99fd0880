// SPDX-License-Identifier: Apache-2.0
// What the server keeps about one of its sandboxes, in served.json of its state directory.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "sandbox/spec.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::server {

struct Record {
  std::string id;  // tells it from another one of its name
  sandbox::SandboxSpec spec;
  std::string exec;            // a program that runs in it, and with whose end it ends; or
  bool image_command = false;  // the image's own command does; else nothing but what clients ask
  std::map<std::string, std::string> labels;
  bool declared = false;    // by the operator, in a Sandboxfile: it may reach what that says
  bool ephemeral = false;   // nothing of it is kept when it has ended
  std::string owner;        // the id of the key that made it; empty: none was asked for
  std::string session;      // the MCP session with whose end it ends; or empty
  std::string idempotency;  // what its creation was called by the client; or empty
  std::string request;      // a hash of that creation
  std::string starter;      // the id of the key that started it last, whose limits it is under
  std::optional<std::uint32_t> lifetime_s;  // what that key allows
  std::int64_t keeper = 0;                  // Keeper::id() of the process that started it last
  std::int64_t created_ms = 0;              // since 1970
  bool operator==(const Record&) const = default;
};

Result<void> write_record(const sandbox::StateDirectory& state, const Record& record);
// Nothing when there is none. It is our own file, but not trusted to be whole.
Result<std::optional<Record>> read_record(const sandbox::StateDirectory& state);

}  // namespace msb::server
