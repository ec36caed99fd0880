// SPDX-License-Identifier: Apache-2.0
#include "base/share_words.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace msb {
namespace {

TEST_CASE("a share's words are a host's path, a place in the guest, and what is said of it") {
  struct Row {
    const char* word;
    const char* host;
    const char* guest;
    bool read_only;
    ShareCache cache;
  };
  for (const Row& row : {
           Row{".:/work", ".", "/work", false, ShareCache::kAuto},
           Row{"/data:/data:ro", "/data", "/data", true, ShareCache::kAuto},
           Row{"a:b:/c", "a:b", "/c", false, ShareCache::kAuto},
           Row{"x:/a//b/:rw", "x", "/a/b", false, ShareCache::kAuto},
           Row{"x:/a:cache=never:ro", "x", "/a", true, ShareCache::kNever},
           Row{"x:/a:cache=always", "x", "/a", false, ShareCache::kAlways},
           Row{"x:/a b/..c", "x", "/a b/..c", false, ShareCache::kAuto},
       }) {
    CAPTURE(row.word);
    const auto share = parse_share(row.word);
    REQUIRE(share);
    CHECK(share->host == row.host);
    CHECK(share->guest == row.guest);
    CHECK(share->read_only == row.read_only);
    CHECK(share->cache == row.cache);
  }
}

TEST_CASE("words that are no share are refused") {
  for (const char* word : {"", "x", "x:", "x:y", ":/a", "x:/", "x://", "x:/a/../b", "x:/a/.",
                           "x:/a\nb", "x:/a:", "x:/a:r", "x:/a:cache=", "x:/a:cache=some"}) {
    CAPTURE(word);
    CHECK_FALSE(parse_share(word));
  }
}

TEST_CASE(
    "shares are put in an order in which outer places come first, and have places of their own") {
  const auto shares = parse_shares({"x:/a/b", "y:/a", "z:/a/b/c"});
  REQUIRE(shares);
  CHECK((*shares)[0].guest == "/a");
  CHECK((*shares)[1].guest == "/a/b");
  CHECK((*shares)[2].guest == "/a/b/c");
  CHECK_FALSE(parse_shares({"x:/a", "y:/a/"}));
}

}  // namespace
}  // namespace msb
