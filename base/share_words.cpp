// SPDX-License-Identifier: Apache-2.0
#include "base/share_words.hpp"

#include <algorithm>
#include <iterator>
#include <optional>

namespace msb {

namespace {

struct CacheWord {
  std::string_view word;
  ShareCache cache;
};
constexpr CacheWord kCacheWords[] = {
    {"never", ShareCache::kNever}, {"auto", ShareCache::kAuto}, {"always", ShareCache::kAlways}};

}  // namespace

std::string_view cache_word(ShareCache cache) {
  return std::ranges::find(kCacheWords, cache, &CacheWord::cache)->word;
}

std::optional<ShareCache> parse_cache(std::string_view word) {
  const auto* const found = std::ranges::find(kCacheWords, word, &CacheWord::word);
  return found == std::end(kCacheWords) ? std::nullopt : std::optional(found->cache);
}

std::optional<std::string> tidy_place(std::string_view path) {
  std::string tidy;
  if (!path.starts_with('/') || path.find_first_of(std::string_view("\n\0", 2)) != path.npos) {
    return std::nullopt;
  }
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string_view part = path.substr(0, path.find('/'));
    path.remove_prefix(part.size());
    if (part == "." || part == "..") {
      return std::nullopt;
    }
    if (!part.empty()) {
      tidy += '/';
      tidy += part;
    }
  }
  return tidy.empty() ? std::nullopt : std::optional(tidy);
}

Result<ShareWords> parse_share(std::string_view word, std::string_view option) {
  ShareWords share;
  // A host's path may have colons in it; a place in the guest begins with "/" and has none.
  const std::size_t colon = word.find(":/");
  if (colon == 0 || colon == word.npos) {
    return fail("{} \"{}\" is not HOST:GUEST[:ro], with an absolute path in the guest", option,
                word);
  }
  share.host = word.substr(0, colon);
  std::string_view rest = word.substr(colon + 1);
  const std::string_view place = rest.substr(0, rest.find(':'));
  rest.remove_prefix(place.size());
  const auto guest = tidy_place(place);
  if (!guest) {
    return fail(
        "{} \"{}\" names the place \"{}\" in the guest, which is not an absolute path below / "
        "without \"..\"",
        option, word, place);
  }
  share.guest = *guest;
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const std::string_view condition = rest.substr(0, rest.find(':'));
    rest.remove_prefix(condition.size());
    constexpr std::string_view kCache = "cache=";
    const auto cache =
        condition.starts_with(kCache) ? parse_cache(condition.substr(kCache.size())) : std::nullopt;
    if (cache) {
      share.cache = *cache;
    } else if (condition == "ro") {
      share.read_only = true;
    } else if (condition != "rw") {
      return fail(
          "{} \"{}\" ends in \"{}\", which is none of ro, rw, cache=never, cache=auto and "
          "cache=always",
          option, word, condition);
    }
  }
  return share;
}

Result<std::vector<ShareWords>> parse_shares(const std::vector<std::string>& words) {
  std::vector<ShareWords> shares;
  for (const std::string& word : words) {
    auto share = parse_share(word);
    if (!share) {
      return std::unexpected(share.error());
    }
    shares.push_back(std::move(*share));
  }
  std::ranges::sort(shares, {}, &ShareWords::guest);
  const auto twice = std::ranges::adjacent_find(shares, {}, &ShareWords::guest);
  if (twice != shares.end()) {
    return fail("--share names the place \"{}\" in the guest twice", twice->guest);
  }
  return shares;
}

}  // namespace msb
