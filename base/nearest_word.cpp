// SPDX-License-Identifier: Apache-2.0
#include "base/nearest_word.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>
#include <vector>

namespace msb {

namespace {

// Longer words are nobody's slip of the finger, and the distance costs the product of the lengths.
constexpr std::size_t kMaxWord = 64;

// The optimal string alignment distance: Damerau and Levenshtein's, in which no part is edited
// twice.
std::size_t distance(std::string_view a, std::string_view b) {
  using Row = std::array<std::size_t, kMaxWord + 1>;
  Row before_last{};
  Row last{};
  Row row{};
  for (std::size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before_last = std::exchange(last, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

}  // namespace

std::optional<std::string> nearest_word(std::string_view word,
                                        std::span<const std::string_view> candidates) {
  if (word.empty() || word.size() > kMaxWord) {
    return std::nullopt;
  }
  std::string_view nearest;
  std::size_t least = kMaxWord;
  std::string_view longer;
  std::size_t begin_with = 0;
  for (const std::string_view candidate : candidates) {
    if (candidate.empty() || candidate.size() > kMaxWord) {
      continue;
    }
    if (candidate.starts_with(word)) {
      longer = candidate;
      ++begin_with;
    }
    const std::size_t edits = distance(word, candidate);
    // Of two letters, one may be another.
    const std::size_t allowed =
        std::max<std::size_t>(1, std::max(word.size(), candidate.size()) / 3);
    if (edits <= allowed && edits < std::min(word.size(), candidate.size()) && edits < least) {
      nearest = candidate;
      least = edits;
    }
  }
  if (begin_with == 1 && word.size() > 1) {
    nearest = longer;
  }
  return nearest.empty() ? std::nullopt : std::optional<std::string>(nearest);
}

std::optional<std::string> nearest_word(std::string_view word,
                                        std::span<const std::string> candidates) {
  const std::vector<std::string_view> views(candidates.begin(), candidates.end());
  return nearest_word(word, std::span(views));
}

std::string did_you_mean(std::string_view word, std::span<const std::string_view> candidates) {
  const auto nearest = nearest_word(word, candidates);
  return nearest ? fmt::format("; did you mean \"{}\"?", *nearest) : "";
}

std::string did_you_mean(std::string_view word, std::span<const std::string> candidates) {
  const std::vector<std::string_view> views(candidates.begin(), candidates.end());
  return did_you_mean(word, std::span(views));
}

}  // namespace msb
