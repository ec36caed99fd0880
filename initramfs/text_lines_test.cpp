// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/text_lines.h"
}

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace {

using Lines = std::vector<std::string>;

bool collect(void* context, const char* line) {
  static_cast<Lines*>(context)->emplace_back(line);
  return true;
}

bool collect_one(void* context, const char* line) {
  static_cast<Lines*>(context)->emplace_back(line);
  return false;
}

Lines lines_of(const std::string& text, size_t piece) {
  Lines lines;
  text_lines state{};
  for (size_t at = 0; at < text.size(); at += piece) {
    size_t length = std::min(piece, text.size() - at);
    CHECK(text_take(&state, text.data() + at, length, collect, &lines));
  }
  return lines;
}

}  // namespace

TEST_CASE("text_is_cut_into_lines_wherever_the_pieces_end") {
  std::string text = "one\n\n  two three\nfour\n";
  for (size_t piece = 1; piece <= text.size(); piece++) {
    CAPTURE(piece);
    CHECK(lines_of(text, piece) == Lines{"one", "", "  two three", "four"});
  }
}

TEST_CASE("text_without_a_last_newline_keeps_that_line_back") {
  CHECK(lines_of("MemTotal: 1\nMemTotal: 12", 5) == Lines{"MemTotal: 1"});
  CHECK(lines_of("", 1).empty());
}

TEST_CASE("text_line_that_is_too_long_is_skipped_whole") {
  std::string longest(TEXT_LINE_MAX, 'a');
  std::string text = longest + "\n" + longest + "b\nshort\n" + std::string(100000, 'c') + "\nend\n";
  for (size_t piece : {size_t{1}, size_t{511}, size_t{512}, size_t{4096}, text.size()}) {
    CAPTURE(piece);
    CHECK(lines_of(text, piece) == Lines{longest, "short", "end"});
  }
}

TEST_CASE("text_stops_where_no_more_is_wanted") {
  Lines lines;
  text_lines state{};
  std::string text = "one\ntwo\n";
  CHECK_FALSE(text_take(&state, text.data(), text.size(), collect_one, &lines));
  CHECK(lines == Lines{"one"});
}

TEST_CASE("text_number_is_taken_only_whole") {
  auto take = [](const char* text, uint64_t* number) { return text_take_number(&text, number); };
  uint64_t number = 7;
  CHECK(take(" \t0", &number));
  CHECK(number == 0);
  CHECK(take("18446744073709551615 1", &number));
  CHECK(number == UINT64_MAX);
  for (const char* text :
       {"", " ", "-1", "+1", "x", "18446744073709551616", "99999999999999999999999"}) {
    CAPTURE(text);
    CHECK_FALSE(take(text, &number));
    CHECK(number == UINT64_MAX);
  }
}

TEST_CASE("text_of_a_file_that_is_missing_or_a_fifo_has_no_lines") {
  char directory[] = "/tmp/text-lines-XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  std::string fifo = std::string(directory) + "/fifo";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  Lines lines;
  text_read(AT_FDCWD, fifo.c_str(), collect, &lines);
  text_read(AT_FDCWD, (fifo + "-not").c_str(), collect, &lines);
  text_read(AT_FDCWD, directory, collect, &lines);
  CHECK(lines.empty());
  unlink(fifo.c_str());
  rmdir(directory);
}

TEST_CASE("text_that_never_ends_is_left_alone") {
  Lines lines;
  text_read(AT_FDCWD, "/dev/zero", collect, &lines);
  CHECK(lines.empty());
}
