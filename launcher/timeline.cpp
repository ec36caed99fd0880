// SPDX-License-Identifier: Apache-2.0
#include "launcher/timeline.hpp"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <charconv>

namespace msb::launcher {

void Timeline::mark(std::string_view phase) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  marks_.push_back({std::string(phase), now.tv_sec * 1'000'000'000LL + now.tv_nsec});
}

void Timeline::add(std::string_view prefix, std::string_view lines) {
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(line.size() + 1, lines.size()));
    const std::size_t space = line.rfind(' ');
    std::int64_t nanoseconds = 0;
    if (space != std::string_view::npos &&
        std::from_chars(line.data() + space + 1, line.data() + line.size(), nanoseconds).ec ==
            std::errc()) {
      marks_.push_back({fmt::format("{}{}", prefix, line.substr(0, space)), nanoseconds});
    }
  }
}

std::string Timeline::table() const {
  std::vector<Mark> marks = marks_;
  std::ranges::stable_sort(marks, {}, &Mark::nanoseconds);
  std::string text = fmt::format("{:<28}{:>12}{:>12}\n", "phase", "at ms", "after ms");
  for (std::size_t i = 0; i < marks.size(); ++i) {
    const auto milliseconds = [&](std::size_t since) {
      return static_cast<double>(marks[i].nanoseconds - marks[since].nanoseconds) / 1e6;
    };
    text += fmt::format("{:<28}{:>12.3f}{:>12.3f}\n", marks[i].phase, milliseconds(0),
                        milliseconds(i == 0 ? 0 : i - 1));
  }
  return text;
}

}  // namespace msb::launcher
