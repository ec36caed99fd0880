// SPDX-License-Identifier: Apache-2.0
#include "base/nearest_word.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

namespace msb {
namespace {

constexpr std::array<std::string_view, 8> kKeys = {"image", "memory",     "volumes",   "ports",
                                                   "envs",  "depends_on", "env_files", "cpus"};

TEST_CASE("a slip of the finger is nearest to the word that was meant") {
  struct Row {
    const char* word;
    const char* meant;
  };
  for (const Row& row :
       {Row{"imgae", "image"}, Row{"imag", "image"}, Row{"images", "image"},
        Row{"memroy", "memory"}, Row{"volume", "volumes"}, Row{"cpu", "cpus"}, Row{"port", "ports"},
        Row{"depend_on", "depends_on"}, Row{"dependson", "depends_on"}, Row{"env", "envs"}}) {
    CAPTURE(row.word);
    CHECK(nearest_word(row.word, kKeys) == row.meant);
  }
}

TEST_CASE("the only word that begins so is meant, however much longer it is") {
  CHECK(nearest_word("dep", kKeys) == "depends_on");
  CHECK(nearest_word("env_", kKeys) == "env_files");
  constexpr std::array<std::string_view, 2> kTwo = {"install-all", "install-none"};
  CHECK_FALSE(nearest_word("ins", kTwo));
}

TEST_CASE("what is near to none is left alone") {
  for (const char* word : {"", "x", "qqq", "kernel", "entirely_else"}) {
    CAPTURE(word);
    CHECK_FALSE(nearest_word(word, kKeys));
    CHECK(did_you_mean(word, kKeys).empty());
  }
  CHECK_FALSE(nearest_word("image", std::span<const std::string>()));
  constexpr std::array<std::string_view, 2> kShort = {"", "b"};
  CHECK_FALSE(nearest_word("a", kShort));
}

TEST_CASE("of equally near words the first is meant") {
  constexpr std::array<std::string_view, 2> kBoth = {"pull", "push"};
  CHECK(nearest_word("pulh", kBoth) == "pull");
  CHECK(nearest_word("pu", kBoth) == std::nullopt);
}

TEST_CASE("words of any length cost little") {
  const std::string huge(10'000'000, 'i');
  const std::vector<std::string> candidates(1000, huge);
  CHECK_FALSE(nearest_word(huge, kKeys));
  CHECK_FALSE(nearest_word("image", candidates));
}

TEST_CASE("the nearest word ends a sentence") {
  CHECK(did_you_mean("imgae", kKeys) == "; did you mean \"image\"?");
  const std::vector<std::string> names = {"web", "worker"};
  CHECK(did_you_mean("worer", names) == "; did you mean \"worker\"?");
}

}  // namespace
}  // namespace msb
