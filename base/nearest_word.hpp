// SPDX-License-Identifier: Apache-2.0
// What a person most likely meant by a word that is none of those that there are.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace msb {

// The only one of `candidates` that begins with `word`; else the one that it is nearest to, with at
// most one edit (a letter too much, too little, another, or two that changed places) for every
// three letters. The first of those that are equally near.
std::optional<std::string> nearest_word(std::string_view word,
                                        std::span<const std::string_view> candidates);
std::optional<std::string> nearest_word(std::string_view word,
                                        std::span<const std::string> candidates);

// `; did you mean "NEAREST"?`, to be the end of a sentence; nothing when none is near.
std::string did_you_mean(std::string_view word, std::span<const std::string_view> candidates);
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

}  // namespace msb
