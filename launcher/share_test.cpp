// SPDX-License-Identifier: Apache-2.0
#include "launcher/share.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace msb::launcher {
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

TEST_CASE("only directories and regular files are shared") {
  std::string directory = "/tmp/msb-share-test-XXXXXX";
  REQUIRE(::mkdtemp(directory.data()) != nullptr);
  std::ofstream(directory + "/file") << "text";
  std::filesystem::create_symlink("file", directory + "/link");
  REQUIRE(::mkfifo((directory + "/fifo").c_str(), 0600) == 0);
  CHECK(open_share(directory));
  CHECK(open_share(directory + "/file"));
  CHECK(open_share(directory + "/link"));
  CHECK_FALSE(open_share(directory + "/fifo"));
  CHECK_FALSE(open_share(directory + "/none"));
  CHECK_FALSE(open_share("/dev/null"));
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace msb::launcher
