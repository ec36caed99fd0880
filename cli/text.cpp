// SPDX-License-Identifier: Apache-2.0
#include "cli/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <utility>

namespace msb::cli {

using std::chrono::seconds;

std::string format_size(std::uint64_t bytes) {
  constexpr std::array kUnits = {"kB", "MB", "GB", "TB", "PB", "EB"};
  constexpr double kStep = 1000;
  if (bytes < 1000) {
    return fmt::format("{} B", bytes);
  }
  auto value = static_cast<double>(bytes) / kStep;
  std::size_t unit = 0;
  // What rounds to 1000 belongs to the next unit.
  while (value >= 999.95 && unit + 1 < kUnits.size()) {
    value /= kStep;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits.at(unit));
}

std::string format_duration(seconds duration) {
  const auto count = duration.count();
  if (count < 1) {
    return "less than a second";
  }
  if (count < 60) {
    return fmt::format("{} s", count);
  }
  if (count < 3600) {
    return fmt::format("{} min {} s", count / 60, count % 60);
  }
  return fmt::format("{} h {} min", count / 3600, count % 3600 / 60);
}

std::string format_age(seconds age) {
  struct Unit {
    std::int64_t length;  // seconds
    std::string_view name;
  };
  constexpr std::array kUnits = {Unit{365 * 86400, "year"}, Unit{30 * 86400, "month"},
                                 Unit{7 * 86400, "week"},   Unit{86400, "day"},
                                 Unit{3600, "hour"},        Unit{60, "minute"}};
  for (const Unit& unit : kUnits) {
    const std::int64_t count = age.count() / unit.length;
    if (count > 0) {
      return fmt::format("{} {}{} ago", count, unit.name, count == 1 ? "" : "s");
    }
  }
  return "just now";
}

std::optional<std::int64_t> parse_time(std::string_view text) {
  const std::string copy(text);
  std::tm parts{};
  const char* rest = ::strptime(copy.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (rest == nullptr) {
    return std::nullopt;
  }
  std::int64_t seconds_east = 0;
  if (*rest == '.') {
    ++rest;
    while (*rest >= '0' && *rest <= '9') {
      ++rest;
    }
  }
  if (std::string_view(rest) != "Z") {
    std::tm zone{};
    const char* end = ::strptime(rest, "%z", &zone);
    if (end == nullptr || *end != '\0') {
      return std::nullopt;
    }
    seconds_east = zone.tm_gmtoff;
  }
  return std::int64_t{::timegm(&parts)} - seconds_east;
}

std::string format_time(std::int64_t since_epoch) {
  const std::time_t value = since_epoch;
  std::tm parts{};
  if (::gmtime_r(&value, &parts) == nullptr) {
    return "";
  }
  std::array<char, 64> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::string quote_for_shell(std::string_view word) {
  const bool plain =
      !word.empty() && word.front() != '~' && std::ranges::all_of(word, [](const char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               std::string_view("-_./:@=+,%~").contains(c);
      });
  if (plain) {
    return std::string(word);
  }
  std::string quoted = "'";
  for (const char c : word) {
    quoted += c == '\'' ? "'\\''" : std::string(1, c);
  }
  return quoted + "'";
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string table;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool last = i + 1 == row.size();
      table += last ? row[i] : fmt::format("{:<{}}  ", row[i], widths[i]);
    }
    table += '\n';
  }
  return table;
}

}  // namespace msb::cli
