// SPDX-License-Identifier: Apache-2.0
#include "launcher/last_words.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

constexpr std::size_t kLines = 16;
// How the kernel begins to say that it cannot go on.
constexpr std::array<std::string_view, 7> kTroubles{
    "Kernel panic", "BUG:",           "Oops:",        "general protection",
    "divide error", "invalid opcode", "Out of memory"};

bool is_trouble(std::string_view line) {
  return std::ranges::any_of(
      kTroubles, [&](std::string_view word) { return line.find(word) != std::string_view::npos; });
}

}  // namespace

std::vector<std::string> last_lines(std::string_view log) {
  std::vector<std::string_view> lines;
  while (!log.empty()) {
    const std::string_view line = log.substr(0, log.find('\n'));
    log.remove_prefix(std::min(log.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
      lines.push_back(line);
    }
  }
  auto first = std::ranges::find_if(lines, is_trouble);
  if (first == lines.end()) {
    first -= static_cast<std::ptrdiff_t>(std::min(lines.size(), kLines));
  }
  const auto last = first + std::min<std::ptrdiff_t>(kLines, lines.end() - first);
  std::vector<std::string> safe;
  for (auto line = first; line != last; ++line) {
    safe.push_back(protocol::quote(*line));
  }
  return safe;
}

std::string last_words(std::string_view log) {
  std::string text;
  for (const std::string& line : last_lines(log)) {
    text += "\n  " + line;
  }
  return text;
}

}  // namespace msb::launcher
