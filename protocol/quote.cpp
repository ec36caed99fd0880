// SPDX-License-Identifier: Apache-2.0
#include "protocol/quote.hpp"

#include <algorithm>

namespace msb::protocol {

std::string quote(std::string_view text) {
  constexpr std::size_t kMax = 300;
  std::string quoted(text.substr(0, kMax));
  std::ranges::replace_if(quoted, [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return quoted;
}

std::string quote(std::span<const std::byte> text) {
  return quote(std::string_view(reinterpret_cast<const char*>(text.data()), text.size()));
}

}  // namespace msb::protocol
