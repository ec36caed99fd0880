// SPDX-License-Identifier: Apache-2.0
// The header fields of HTTP answers that a pull understands (RFC 9110). Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace msb::oci {

// Section 11.6.1: one way in which a server wants to be told who asks.
struct Challenge {
  struct Parameter {
    std::string name;  // lower case
    std::string value;
  };

  std::string scheme;  // lower case
  std::vector<Parameter> parameters;

  // The value of the first parameter of that name; null when there is none.
  [[nodiscard]] const std::string* find(std::string_view name) const;
};

// The challenges of one WWW-Authenticate field, up to the first that is malformed, at most 16.
std::vector<Challenge> parse_challenges(std::string_view field);

// Section 10.2.3: seconds, or a date, which is counted from `now`; never negative. Nothing when it
// is neither.
std::optional<std::chrono::seconds> parse_retry_after(std::string_view field,
                                                      std::chrono::system_clock::time_point now);

// Section 14.4, of a part that was sent: "bytes FIRST-LAST/SIZE". Nothing when it is malformed.
struct ContentRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  std::optional<std::uint64_t> size;  // of the whole; absent when it is "*"
};
std::optional<ContentRange> parse_content_range(std::string_view field);

// Section 8.6. Nothing when it is no number.
std::optional<std::uint64_t> parse_content_length(std::string_view field);

// Section 8.3: a Content-Type in lower case and without its parameters.
std::string media_type_of(std::string_view field);

}  // namespace msb::oci
