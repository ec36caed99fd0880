// SPDX-License-Identifier: Apache-2.0
#include "cli/text.hpp"

#include <doctest/doctest.h>

namespace msb::cli {
namespace {

using std::chrono::seconds;

TEST_CASE("size is written with the unit that it needs") {
  CHECK(format_size(0) == "0 B");
  CHECK(format_size(999) == "999 B");
  CHECK(format_size(1000) == "1.0 kB");
  CHECK(format_size(1549) == "1.5 kB");
  CHECK(format_size(999'949) == "999.9 kB");
  CHECK(format_size(999'951) == "1.0 MB");
  CHECK(format_size(45'100'000) == "45.1 MB");
  CHECK(format_size(~std::uint64_t{0}) == "18.4 EB");
}

TEST_CASE("duration and age say what matters") {
  CHECK(format_duration(seconds(0)) == "less than a second");
  CHECK(format_duration(seconds(59)) == "59 s");
  CHECK(format_duration(seconds(200)) == "3 min 20 s");
  CHECK(format_duration(seconds(7500)) == "2 h 5 min");
  CHECK(format_age(seconds(-5)) == "just now");
  CHECK(format_age(seconds(59)) == "just now");
  CHECK(format_age(seconds(60)) == "1 minute ago");
  CHECK(format_age(seconds(3 * 7 * 86400)) == "3 weeks ago");
  CHECK(format_age(seconds(800 * 86400)) == "2 years ago");
}

TEST_CASE("times of images are read with parts of a second and zones") {
  CHECK(parse_time("1970-01-01T00:00:10Z") == 10);
  CHECK(parse_time("1970-01-01T00:00:10.123456789Z") == 10);
  CHECK(parse_time("1970-01-01T02:00:00+02:00") == 0);
  CHECK(parse_time("1969-12-31T23:00:00-01:00") == 0);
  CHECK_FALSE(parse_time(""));
  CHECK_FALSE(parse_time("yesterday"));
  CHECK_FALSE(parse_time("1970-01-01T00:00:10"));
  CHECK_FALSE(parse_time("1970-01-01T00:00:10Zx"));
  CHECK(format_time(*parse_time("2026-11-25T08:43:29Z")) == "2026-11-25T08:43:29Z");
}

TEST_CASE("table has columns of equal width and no blanks at the end") {
  CHECK(format_table({{"NAME", "SIZE"}, {"a", "1 B"}, {"longer", "22 B"}}) ==
        "NAME    SIZE\na       1 B\nlonger  22 B\n");
}

TEST_CASE("a shell reads a quoted word as one") {
  CHECK(quote_for_shell("base:1.2") == "base:1.2");
  CHECK(quote_for_shell("web~test") == "web~test");
  CHECK(quote_for_shell("~/x") == "'~/x'");
  CHECK(quote_for_shell("") == "''");
  CHECK(quote_for_shell("a b") == "'a b'");
  CHECK(quote_for_shell("it's $HOME") == "'it'\\''s $HOME'");
}

}  // namespace
}  // namespace msb::cli
