// SPDX-License-Identifier: Apache-2.0
// The characters of YAML (YAML 1.2.2, sections 5.1 to 5.7), and text written as its scalars. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace msb::sandbox {

struct BadCharacter {
  std::size_t offset;  // bytes
  std::string message;
};
// The first that a text of YAML may not have: what is no UTF-8, control characters, and a carriage
// return that does not end a line together with a line feed.
std::optional<BadCharacter> find_bad_character(std::string_view text);

// `value` as a scalar in a block, on one line: without quotation marks where every reader of YAML
// takes it for this text. `value` is UTF-8.
std::string yaml_scalar(std::string_view value);
// Always in quotation marks.
std::string yaml_quoted(std::string_view value);
// The lines of `value` as a literal scalar ("|"), each behind `indent`; nothing where one could not
// say it. Begins with the indicator, and ends without a line break.
std::optional<std::string> yaml_literal(std::string_view value, std::string_view indent,
                                        std::string_view line_end);

}  // namespace msb::sandbox
