// SPDX-License-Identifier: Apache-2.0
// The one server of a $MSB_HOME, and where it is found, in $MSB_HOME/server:
//
//   lock           held while it runs
//   running.json   {"pid", "url", "started_ms", "dev"} of the one that holds it
//   log            what one in the background writes: a line of JSON for each request
//   keys.json      keys.hpp
//   sandboxes/NAMESPACE/NAME   what a sandbox keeps (sandbox/state_directory.hpp)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::server {

// Below `home`, $MSB_HOME. Makes nothing.
std::string server_folder(const std::string& home);

struct RunningServer {
  std::int64_t pid = 0;
  std::string url;              // http://127.0.0.1:5555
  std::int64_t started_ms = 0;  // since 1970
  bool dev = false;
  Fd process;  // a pidfd
};

// Nothing when none runs. Its pidfd is of the very process that holds the lock. Fails when one runs
// that has not announced itself yet.
Result<std::optional<RunningServer>> find_server(const std::string& home);

// Held by the server that runs.
class Presence {
 public:
  // Fails, naming the other's address, when one runs already. Makes the folder (mode 0700), and
  // removes what a server before has said.
  static Result<Presence> take(const std::string& home);
  // That it listens now.
  Result<void> announce(const std::string& url, bool dev) const;

 private:
  Presence(std::string folder, Fd lock) : folder_(std::move(folder)), lock_(std::move(lock)) {}
  std::string folder_;
  Fd lock_;
};

}  // namespace msb::server
