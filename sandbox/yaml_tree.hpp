// SPDX-License-Identifier: Apache-2.0
// YAML as a tree that knows where each of its nodes is written. Pure. The text may come from
// anybody: its size, depth and number of nodes are bounded, and there are no anchors, aliases or
// tags.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace msb::sandbox {

inline constexpr std::size_t kMaxYaml = 1024 * 1024;  // bytes

// Both from 1, in lines and characters; 0 where there is none.
struct Position {
  std::size_t line = 0;
  std::size_t column = 0;
  bool operator==(const Position&) const = default;
};

struct YamlMember;

struct YamlNode {
  enum class Kind : std::uint8_t { kNull, kScalar, kSequence, kMap };
  Kind kind = Kind::kNull;
  bool flow = false;  // a sequence or map in brackets
  std::string text;   // of a scalar
  std::vector<YamlNode> items;
  std::vector<YamlMember> members;  // in the text's order; no two have the same key
  Position position;
  std::size_t offset = 0;  // of `position` in the text, bytes

  // Null when a map has no such key.
  [[nodiscard]] const YamlMember* find(std::string_view key) const;
  // Whether they mean the same, wherever and however they are written.
  [[nodiscard]] bool same(const YamlNode& other) const;
};

struct YamlMember {
  YamlNode key;  // a scalar
  YamlNode value;
};

// What is wrong with a text, and where.
struct YamlFlaw {
  Position position;
  std::string message;
};

// "NAME:LINE:COLUMN: message", with what the text's author wrote made safe to show.
Error error_at(std::string_view name, const YamlFlaw& flaw);

// The only document of `text`: a null when there is none.
std::expected<YamlNode, YamlFlaw> parse_yaml(std::string_view text);

}  // namespace msb::sandbox
