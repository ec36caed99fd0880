// SPDX-License-Identifier: Apache-2.0
#include "cli/copy_words.hpp"

#include <doctest/doctest.h>

namespace msb::cli {
namespace {

TEST_CASE("a word of cp is a sandbox's path when a name and a colon come first") {
  const auto sandbox_of = [](const std::string& word) { return parse_copy_word(word).sandbox; };
  CHECK(sandbox_of("web:/etc") == "web");
  CHECK(sandbox_of("web:") == "web");
  CHECK(sandbox_of("web_1-a:x:y") == "web_1-a");
  for (const std::string word :
       {"/web:/etc", "./web:/etc", "a/b:c", "web", "", ":/x", "-:x", "."}) {
    CAPTURE(word);
    CHECK(sandbox_of(word).empty());
    CHECK(parse_copy_word(word).path == word);
  }
  CHECK(parse_copy_word("web:x:y").path == "x:y");
  CHECK(parse_copy_word("web:").path.empty());
}

TEST_CASE("the end of a path says whether it is a directory, and whether its content is meant") {
  struct Case {
    const char* path;
    const char* stripped;
    const char* name;
    bool content;
    bool directory;
  };
  for (const Case& one :
       {Case{"a", "a", "a", false, false}, Case{"/a/b", "/a/b", "b", false, false},
        Case{"a/", "a", "a", false, true}, Case{"/a//", "/a", "a", false, true},
        Case{"a/.", "a", "", true, true}, Case{"a/./", "a", "", true, true},
        Case{"a/./.", "a", "", true, true}, Case{"/", "/", "", true, true},
        Case{"/.", "/", "", true, true}, Case{".", ".", "", true, true},
        Case{"./", ".", "", true, true}, Case{"a/..", "a/..", "", true, true},
        Case{"..", "..", "", true, true}, Case{"a.", "a.", "a.", false, false}}) {
    CAPTURE(one.path);
    const CopyPath parsed = parse_copy_path(one.path);
    CHECK(parsed.path == one.stripped);
    CHECK(parsed.name == one.name);
    CHECK(parsed.content == one.content);
    CHECK(parsed.directory == one.directory);
  }
}

Result<CopyPlace> place(const char* source, CopyKind source_kind, const char* destination,
                        CopyKind destination_kind) {
  return choose_copy_place(parse_copy_path(source), source_kind, parse_copy_path(destination),
                           destination_kind, "'shown'");
}

constexpr CopyKind kMissing = CopyKind::kMissing;
constexpr CopyKind kDirectory = CopyKind::kDirectory;
constexpr CopyKind kOther = CopyKind::kOther;

TEST_CASE("a file goes into a directory, or gets the name") {
  CHECK(place("f", kOther, "/d", kDirectory)->path == "/d/f");
  CHECK(place("x/f", kOther, "/", kDirectory)->path == "/f");
  CHECK(place("f", kOther, "/g", kMissing)->path == "/g");
  CHECK(place("f", kOther, "/g", kOther)->path == "/g");
  CHECK_FALSE(place("f", kOther, "/g/", kMissing));
  CHECK_FALSE(place("f", kOther, "/g/", kOther));
  CHECK_FALSE(place("f/", kOther, "/g", kMissing));
  CHECK_FALSE(place("f/.", kOther, "/g", kMissing));
}

TEST_CASE("a directory goes into a directory, or gets the name, and /. means what is in it") {
  CHECK(place("x/d", kDirectory, "/e", kDirectory)->path == "/e/d");
  CHECK_FALSE(place("x/d", kDirectory, "/e", kDirectory)->content);
  CHECK(place("x/d/.", kDirectory, "/e", kDirectory)->path == "/e");
  CHECK(place("x/d/.", kDirectory, "/e", kDirectory)->content);
  CHECK(place(".", kDirectory, "/e", kDirectory)->content);
  CHECK(place("x/d", kDirectory, "/e", kMissing)->path == "/e");
  CHECK(place("x/d", kDirectory, "/e/", kMissing)->path == "/e");
  CHECK(place("x/d/.", kDirectory, "/e", kMissing)->path == "/e");
  CHECK_FALSE(place("x/d", kDirectory, "/e", kOther));
  CHECK_FALSE(place("x/d/.", kDirectory, "/e", kOther));
}

TEST_CASE("a path has a directory and a name") {
  CHECK(directory_of("/a/b") == "/a");
  CHECK(directory_of("/a") == "/");
  CHECK(directory_of("a") == ".");
  CHECK(directory_of("a/b") == "a");
  CHECK(name_of("/a/b") == "b");
  CHECK(name_of("b") == "b");
  CHECK(name_of("/").empty());
}

}  // namespace
}  // namespace msb::cli
