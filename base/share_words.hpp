// SPDX-License-Identifier: Apache-2.0
// Words that put a directory or file of the host into a sandbox: those of `msb-vmm run --share`,
// and of a Sandboxfile's volumes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/share_cache.hpp"

namespace msb {

// What the user asked for: HOST:GUEST[:ro][:cache=never|auto|always], the words behind GUEST in any
// order.
struct ShareWords {
  std::string host;
  std::string guest;  // absolute, without "." and "..", and not the root
  bool read_only = false;
  ShareCache cache = ShareCache::kAuto;
};
// `option`: what errors call it.
Result<ShareWords> parse_share(std::string_view word, std::string_view option = "--share");

// Those of several words, no two of which are for one place; in an order in which a place comes
// before those below it.
Result<std::vector<ShareWords>> parse_shares(const std::vector<std::string>& words);

// "never", "auto" or "always".
std::string_view cache_word(ShareCache cache);
std::optional<ShareCache> parse_cache(std::string_view word);
// "/a//b/" as "/a/b". Nothing for a path that is not absolute, leads upwards, is the root, or
// cannot be said in the boot file.
std::optional<std::string> tidy_place(std::string_view path);

}  // namespace msb
