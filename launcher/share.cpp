// SPDX-License-Identifier: Apache-2.0
#include "launcher/share.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <optional>

namespace msb::launcher {

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

Result<ShareWords> parse_share(std::string_view word) {
  ShareWords share;
  // A host's path may have colons in it; a place in the guest begins with "/" and has none.
  const std::size_t colon = word.find(":/");
  if (colon == 0 || colon == word.npos) {
    return fail("--share \"{}\" is not HOST:GUEST[:ro], with an absolute path in the guest", word);
  }
  share.host = word.substr(0, colon);
  std::string_view rest = word.substr(colon + 1);
  const std::string_view place = rest.substr(0, rest.find(':'));
  rest.remove_prefix(place.size());
  const auto guest = tidy_place(place);
  if (!guest) {
    return fail(
        "--share \"{}\" names the place \"{}\" in the guest, which is not an absolute path below / "
        "without \"..\"",
        word, place);
  }
  share.guest = *guest;
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const std::string_view option = rest.substr(0, rest.find(':'));
    rest.remove_prefix(option.size());
    constexpr std::string_view kCache = "cache=";
    const auto cache =
        option.starts_with(kCache) ? parse_cache(option.substr(kCache.size())) : std::nullopt;
    if (cache) {
      share.cache = *cache;
    } else if (option == "ro") {
      share.read_only = true;
    } else if (option != "rw") {
      return fail(
          "--share \"{}\" ends in \"{}\", which is none of ro, rw, cache=never, cache=auto and "
          "cache=always",
          word, option);
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

Result<Fd> open_share(const std::string& path) {
  Fd file(::open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat status{};
  if (!file || ::fstat(file.get(), &status) != 0) {
    return fail_errno(errno, "cannot share \"{}\"", path);
  }
  if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) {
    return fail("cannot share \"{}\": it is neither a directory nor a regular file", path);
  }
  const int needed = S_ISDIR(status.st_mode) ? R_OK | X_OK : R_OK;
  if (::faccessat(AT_FDCWD, path.c_str(), needed, AT_EACCESS) != 0) {
    return fail_errno(errno, "cannot share \"{}\"", path);
  }
  return file;
}

}  // namespace msb::launcher
