// SPDX-License-Identifier: Apache-2.0
#include "sandbox/yaml_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>

namespace msb::sandbox {

namespace {

constexpr char32_t kInvalid = 0xffff'ffff;

// Takes the first character off `text`; kInvalid for bytes that are none (RFC 3629, section 4).
char32_t take_character(std::string_view& text) {
  const auto byte = [&text](std::size_t i) {
    return i < text.size() ? static_cast<std::uint8_t>(text[i]) : std::uint8_t{0};
  };
  const std::uint8_t first = byte(0);
  const std::size_t length = first < 0x80             ? 1
                             : (first & 0xe0) == 0xc0 ? 2
                             : (first & 0xf0) == 0xe0 ? 3
                             : (first & 0xf8) == 0xf0 ? 4
                                                      : 0;
  if (length == 0) {
    return kInvalid;
  }
  constexpr std::array<std::uint8_t, 5> kBits = {0, 0x7f, 0x1f, 0x0f, 0x07};
  constexpr std::array<char32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  char32_t character = first & kBits[length];
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) {
      return kInvalid;
    }
    character = character << 6 | (byte(i) & 0x3f);
  }
  const bool surrogate = character >= 0xd800 && character <= 0xdfff;
  if (character < kLeast[length] || character > 0x10ffff || surrogate) {
    return kInvalid;
  }
  text.remove_prefix(length);
  return character;
}

// c-printable (section 5.1), and no break or mark that readers of YAML 1.1 and 1.2 differ about.
bool is_plainly_printable(char32_t character) {
  if (character < 0x80) {
    return (character >= ' ' && character <= '~') || character == '\t' || character == '\n';
  }
  const bool is_break = character == 0x85 || character == 0x2028 || character == 0x2029;
  return character >= 0xa0 && !is_break && character != 0xfeff && (character & 0xfffe) != 0xfffe;
}

bool may_stand_in_yaml(char32_t character) {
  return is_plainly_printable(character) || character == 0x85 || character == 0x2028 ||
         character == 0x2029;
}

std::string escape(char32_t character) {
  switch (character) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\t':
      return "\\t";
    case '\r':
      return "\\r";
    default:
      break;
  }
  const auto number = static_cast<std::uint32_t>(character);
  return number < 0x100     ? fmt::format("\\x{:02x}", number)
         : number < 0x10000 ? fmt::format("\\u{:04x}", number)
                            : fmt::format("\\U{:08x}", number);
}

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// What some reader of YAML takes for something else than text (YAML 1.1, types null and bool).
bool is_reserved(std::string_view value) {
  std::string lower(value);
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? char(c | 0x20) : c; });
  constexpr std::array<std::string_view, 9> kReserved = {"null", "true", "false", "yes", "no",
                                                         "on",   "off",  "y",     "n"};
  return std::ranges::find(kReserved, lower) != kReserved.end();
}

bool is_plain(std::string_view value) {
  constexpr std::string_view kSafe = "/._-@+=,:()*$ ";
  const bool begins_plain = !value.empty() && (is_letter(value.front()) || value.front() == '/' ||
                                               value.starts_with("./") || value.starts_with("../"));
  const bool safe = std::ranges::all_of(value, [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || kSafe.find(c) != kSafe.npos;
  });
  return begins_plain && safe && value.find(": ") == value.npos && !value.ends_with(':') &&
         !value.ends_with(' ') && !is_reserved(value);
}

}  // namespace

std::optional<BadCharacter> find_bad_character(std::string_view text) {
  const std::string_view whole = text;
  while (!text.empty()) {
    const std::size_t offset = whole.size() - text.size();
    const char32_t character = take_character(text);
    if (character == kInvalid) {
      return BadCharacter{offset, "it is not UTF-8 here"};
    }
    if (character == '\r') {
      if (!text.starts_with('\n')) {
        return BadCharacter{offset, "a carriage return is not followed by a line feed"};
      }
    } else if (!may_stand_in_yaml(character)) {
      return BadCharacter{offset,
                          fmt::format("the character U+{:04X} cannot stand in YAML; write it as an "
                                      "escape in double quotation marks",
                                      static_cast<std::uint32_t>(character))};
    }
  }
  return std::nullopt;
}

std::string yaml_quoted(std::string_view value) {
  std::string quoted = "\"";
  while (!value.empty()) {
    const std::string_view before = value;
    const char32_t character = take_character(value);
    if (character == kInvalid) {
      quoted += "\\ufffd";
      value.remove_prefix(1);
    } else if (is_plainly_printable(character) && character != '"' && character != '\\' &&
               character != '\n' && character != '\t') {
      quoted += before.substr(0, before.size() - value.size());
    } else {
      quoted += escape(character);
    }
  }
  return quoted + '"';
}

std::string yaml_scalar(std::string_view value) {
  return is_plain(value) ? std::string(value) : yaml_quoted(value);
}

std::optional<std::string> yaml_literal(std::string_view value, std::string_view indent,
                                        std::string_view line_end) {
  const bool ends = value.ends_with('\n');
  const std::string_view body = value.substr(0, value.size() - (ends ? 1 : 0));
  // The first line tells the indentation, and the last ones are cut off as the indicator says.
  if (body.empty() || body.ends_with('\n') || body.find_first_of(" \t\n") == 0) {
    return std::nullopt;
  }
  for (std::string_view rest = value; !rest.empty();) {
    const char32_t character = take_character(rest);
    if (character == kInvalid || !is_plainly_printable(character)) {
      return std::nullopt;
    }
  }
  std::string literal = ends ? "|" : "|-";
  for (std::size_t begin = 0; begin <= body.size();) {
    const std::size_t end = std::min(body.find('\n', begin), body.size());
    const std::string_view line = body.substr(begin, end - begin);
    literal += line_end;
    if (!line.empty()) {
      fmt::format_to(std::back_inserter(literal), "{}{}", indent, line);
    }
    begin = end + 1;
  }
  return literal;
}

}  // namespace msb::sandbox
