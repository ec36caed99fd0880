// SPDX-License-Identifier: Apache-2.0
#include "server/utf8.hpp"

#include <doctest/doctest.h>

namespace msb::server {
namespace {

TEST_CASE("text is UTF-8 as RFC 3629 has it") {
  for (const char* good : {"", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf",
                           "\xf4\x8f\xbf\xbf", "\xef\xbf\xbd"}) {
    CAPTURE(good);
    CHECK(is_utf8(good));
  }
  for (const char* bad : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82", "\xe2(\xac"}) {
    CAPTURE(bad);
    CHECK_FALSE(is_utf8(bad));
  }
}

TEST_CASE("a character that comes in pieces is given whole") {
  WholeCharacters characters;
  CHECK(characters.add("a\xe2") == "a");
  CHECK(characters.waiting() == 1);
  CHECK(characters.add("\x82").empty());
  CHECK(characters.add("\xac.\xf0") == "\xe2\x82\xac.");
  CHECK(characters.rest() == "\xf0");
  CHECK(characters.rest().empty());
}

TEST_CASE("what is not UTF-8 does not wait") {
  WholeCharacters characters;
  CHECK(characters.add("a\xff\xe2") == "a\xff\xe2");
  CHECK(characters.waiting() == 0);
}

TEST_CASE("plain text stays in its line and in its order") {
  for (const char* plain : {"", "ci of \xc3\xbc", "a\\b", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                            "\xc2\xa0", "\xed\x9f\xbf"}) {
    CAPTURE(plain);
    CHECK(is_plain_text(plain));
  }
  for (const char* other : {"\xff", "a\xc3", "\n", "\x1b[2J", "\x7f", "\xc2\x85",
                            "\xc2\x9b"
                            "2J",
                            "\xe2\x80\xa8",
                            "\xe2\x80\xae"
                            "abc",
                            "\xe2\x81\xa6", "\xe2\x80\x8b", "\xef\xbb\xbf"}) {
    CAPTURE(other);
    CHECK_FALSE(is_plain_text(other));
  }
}

}  // namespace
}  // namespace msb::server
