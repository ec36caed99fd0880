// SPDX-License-Identifier: Apache-2.0
#include "oci/printable.hpp"

#include <fmt/format.h>

#include <iterator>

namespace msb::oci {

std::string printable(std::string_view name) {
  constexpr std::size_t kMaxShown = 256;
  std::string text;
  for (const char c : name.substr(0, kMaxShown)) {
    if (c >= ' ' && c <= '~' && c != '\\') {
      text += c;
    } else {
      fmt::format_to(std::back_inserter(text), "\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  if (name.size() > kMaxShown) {
    text += "...";
  }
  return text;
}

}  // namespace msb::oci
