// SPDX-License-Identifier: Apache-2.0
// This host's resolvers, from resolv.conf(5).
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/socket_address.hpp"

namespace msb::launcher {

struct ResolverConfig {
  std::vector<SocketAddress> servers;  // at least one, at most 3; port 0
  std::vector<std::string> search;     // domains, of letters, digits and "._-"
};

// Never fails: a line that makes no sense says nothing, and a file that names no server means
// 127.0.0.1, as the manual says.
ResolverConfig parse_resolvers(std::string_view text);
// The same of a file, which may be missing.
ResolverConfig read_resolvers(const std::string& path);

// What the file says now. Read again when it has changed: a computer that moves to another network
// gets other resolvers.
class Resolvers {
 public:
  explicit Resolvers(std::string path) : path_(std::move(path)) {}
  const ResolverConfig& now();

 private:
  const std::string path_;
  std::optional<ResolverConfig> config_;
  struct stat status_{};  // of the file that it was read from; zeros: there was none
};

}  // namespace msb::launcher
