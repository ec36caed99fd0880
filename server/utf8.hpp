// SPDX-License-Identifier: Apache-2.0
// Text of others, which may be no UTF-8 (RFC 3629). Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace msb::server {

bool is_utf8(std::string_view text);

// Whether it is UTF-8 that a terminal shows where it is written and in the order of its characters:
// without control characters, line breaks, and what has no width or turns the direction.
bool is_plain_text(std::string_view text);

// Cuts what comes in pieces behind whole characters.
class WholeCharacters {
 public:
  // What came so far and was not given, but for a character at its end that may still become
  // complete.
  std::string add(std::string_view bytes);
  // What never did.
  std::string rest();
  // Its length.
  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }

 private:
  std::string waiting_;
};

}  // namespace msb::server
