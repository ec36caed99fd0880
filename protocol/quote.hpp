// SPDX-License-Identifier: Apache-2.0
// A guest's text as part of our own messages.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace msb::protocol {

// One line of at most 300 printable ASCII characters: every other byte becomes "?", so that no text
// of a guest can move a cursor, forge a line or change what was printed before it.
std::string quote(std::span<const std::byte> text);
std::string quote(std::string_view text);

}  // namespace msb::protocol
