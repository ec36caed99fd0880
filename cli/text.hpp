// SPDX-License-Identifier: Apache-2.0
// How `msb` writes numbers, times and tables for people.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace msb::cli {

// "0 B", "999 B", "1.5 kB", "45.1 MB", "3.2 GB": powers of 1000, as registries count.
std::string format_size(std::uint64_t bytes);

// "less than a second", "12 s", "3 min 20 s", "2 h 5 min".
std::string format_duration(std::chrono::seconds duration);

// "just now", "5 minutes ago", "3 weeks ago"; a time to come is "just now".
std::string format_age(std::chrono::seconds age);

// Seconds since 1970 of an RFC 3339 time; nothing for other text.
std::optional<std::int64_t> parse_time(std::string_view text);

// "2026-11-25T08:43:29Z", of seconds since 1970.
std::string format_time(std::int64_t since_epoch);

// A word as a shell reads it as one: in single quotes, or as it is where that is plain enough.
std::string quote_for_shell(std::string_view word);

// Rows as columns of equal width, two blanks between them, one row a line; the first row is the
// heading.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace msb::cli
