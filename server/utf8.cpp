// SPDX-License-Identifier: Apache-2.0
#include "server/utf8.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace msb::server {

namespace {

// What a byte begins (RFC 3629, section 4): how long it is, and what its second byte may be.
struct Beginning {
  std::size_t length;  // 0: nothing begins so
  unsigned char least = 0x80;
  unsigned char most = 0xbf;
};
Beginning beginning(unsigned char byte) {
  if (byte < 0x80) {
    return {1};
  }
  if (byte < 0xc2 || byte > 0xf4) {
    return {0};
  }
  if (byte < 0xe0) {
    return {2};
  }
  if (byte < 0xf0) {
    return {3, static_cast<unsigned char>(byte == 0xe0 ? 0xa0 : 0x80),
            static_cast<unsigned char>(byte == 0xed ? 0x9f : 0xbf)};
  }
  return {4, static_cast<unsigned char>(byte == 0xf0 ? 0x90 : 0x80),
          static_cast<unsigned char>(byte == 0xf4 ? 0x8f : 0xbf)};
}

struct Characters {
  std::size_t whole = 0;  // bytes of those in front
  bool good = true;       // what is behind them is nothing, or the beginning of one
};
Characters characters_of(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Beginning begun = beginning(static_cast<unsigned char>(text[at]));
    if (begun.length == 0) {
      return {at, false};
    }
    const std::size_t there = std::min(begun.length, text.size() - at);
    for (std::size_t i = 1; i < there; ++i) {
      const auto byte = static_cast<unsigned char>(text[at + i]);
      if (byte < (i == 1 ? begun.least : 0x80) || byte > (i == 1 ? begun.most : 0xbf)) {
        return {at, false};
      }
    }
    if (there < begun.length) {
      return {at, true};
    }
    at += begun.length;
  }
  return {at, true};
}

// Of Unicode: control characters, and those of format that move or turn what is around them.
struct Range {
  char32_t first;
  char32_t last;
};
constexpr std::array<Range, 9> kNotPlain = {{{0, 0x1f},
                                             {0x7f, 0x9f},
                                             {0x61c, 0x61c},
                                             {0x200b, 0x200b},
                                             {0x200e, 0x200f},
                                             {0x2028, 0x202e},
                                             {0x2060, 0x206f},
                                             {0xfeff, 0xfeff},
                                             {0xe0000, 0xe007f}}};

}  // namespace

bool is_utf8(std::string_view text) {
  return characters_of(text).whole == text.size();
}

bool is_plain_text(std::string_view text) {
  if (!is_utf8(text)) {
    return false;
  }
  while (!text.empty()) {
    const auto first = static_cast<unsigned char>(text.front());
    const std::size_t length = beginning(first).length;
    char32_t character = length == 1 ? first : first & (0x7fU >> length);
    for (const char c : text.substr(1, length - 1)) {
      character = character << 6 | (static_cast<unsigned char>(c) & 0x3fU);
    }
    if (std::ranges::any_of(kNotPlain, [character](const Range& range) {
          return character >= range.first && character <= range.last;
        })) {
      return false;
    }
    text.remove_prefix(length);
  }
  return true;
}

std::string WholeCharacters::add(std::string_view bytes) {
  std::string text = std::exchange(waiting_, {});
  text += bytes;
  const Characters characters = characters_of(text);
  if (characters.good) {
    waiting_ = text.substr(characters.whole);
    text.resize(characters.whole);
  }
  return text;
}

std::string WholeCharacters::rest() {
  return std::exchange(waiting_, {});
}

}  // namespace msb::server
