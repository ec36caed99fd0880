// SPDX-License-Identifier: Apache-2.0
#include "oci/printable.hpp"

#include <fmt/format.h>

#include <iterator>

namespace msb::oci {

std::string printable(std::string_view name, std::size_t limit) {
  std::string text;
  for (const char c : name.substr(0, limit)) {
    if (c >= ' ' && c <= '~' && c != '\\') {
      text += c;
    } else {
      fmt::format_to(std::back_inserter(text), "\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  if (name.size() > limit) {
    text += "...";
  }
  return text;
}

}  // namespace msb::oci
