// SPDX-License-Identifier: Apache-2.0
// Directories and files of the host's in a sandbox: `msb-vmm run --share` and `--rootfs`.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/share_cache.hpp"

namespace msb::launcher {

// What the user asked for: HOST:GUEST[:ro][:cache=never|auto|always], the words behind GUEST in any
// order.
struct ShareWords {
  std::string host;
  std::string guest;  // absolute, without "." and "..", and not the root
  bool read_only = false;
  ShareCache cache = ShareCache::kAuto;
};
Result<ShareWords> parse_share(std::string_view word);

// Those of several words, no two of which are for one place; in an order in which a place comes
// before those below it.
Result<std::vector<ShareWords>> parse_shares(const std::vector<std::string>& words);

// "never", "auto" or "always".
std::string_view cache_word(ShareCache cache);
std::optional<ShareCache> parse_cache(std::string_view word);
// "/a//b/" as "/a/b". Nothing for a path that is not absolute, leads upwards, is the root, or
// cannot be said in the boot file.
std::optional<std::string> tidy_place(std::string_view path);

// An O_PATH descriptor of the directory or regular file at `path`, symbolic links followed. Fails
// for anything else, and for what this user cannot use.
Result<Fd> open_share(const std::string& path);

}  // namespace msb::launcher
