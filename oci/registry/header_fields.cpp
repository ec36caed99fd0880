// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/header_fields.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>
#include <system_error>

namespace msb::oci {
namespace {

constexpr std::size_t kMaxChallenges = 16;
constexpr std::size_t kMaxParameters = 32;  // of one challenge
constexpr std::string_view kSpace = " \t";

// RFC 9110, section 5.6.2.
bool is_token_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return lower;
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stop == end ? std::optional(number) : std::nullopt;
}

// Reads a list of challenges from left to right.
class ChallengeReader {
 public:
  explicit ChallengeReader(std::string_view rest) : rest_(rest) {}

  std::vector<Challenge> read() {
    while (challenges_.size() < kMaxChallenges && read_element()) {
    }
    return std::move(challenges_);
  }

 private:
  // An element of the list: a scheme with what follows it up to the comma, or a further parameter.
  bool read_element() {
    skip(" \t,");
    const std::string_view word = take_token();
    if (word.empty()) {
      return false;
    }
    skip(kSpace);
    if (rest_.starts_with('=')) {
      return !challenges_.empty() && read_value(word);
    }
    challenges_.push_back(Challenge{lower_case(word), {}});
    return rest_.empty() || rest_.starts_with(',') || read_first_parameter();
  }

  // What follows a scheme: a parameter, or the scheme's own text (token68), which is skipped.
  bool read_first_parameter() {
    const std::string_view start = rest_;
    const std::string_view name = take_token();
    skip(kSpace);
    const bool is_parameter = !name.empty() && rest_.starts_with('=') && rest_.size() > 1 &&
                              rest_[1] != '=' && rest_[1] != ',';
    if (is_parameter) {
      return read_value(name);
    }
    rest_ = start.substr(std::min(start.find(','), start.size()));
    return true;
  }

  bool read_value(std::string_view name) {
    rest_.remove_prefix(1);  // '='
    skip(kSpace);
    std::string value;
    if (rest_.starts_with('"')) {
      if (!take_quoted(value)) {
        return false;
      }
    } else {
      value = take_token();
      if (value.empty()) {
        return false;
      }
    }
    skip(kSpace);
    if (!rest_.empty() && !rest_.starts_with(',')) {
      return false;
    }
    auto& parameters = challenges_.back().parameters;
    if (parameters.size() == kMaxParameters) {
      return false;
    }
    parameters.push_back({lower_case(name), std::move(value)});
    return true;
  }

  bool take_quoted(std::string& value) {
    for (std::size_t i = 1; i < rest_.size(); ++i) {
      if (rest_[i] == '"') {
        rest_.remove_prefix(i + 1);
        return true;
      }
      if (rest_[i] == '\\' && ++i == rest_.size()) {
        return false;
      }
      value += rest_[i];
    }
    return false;
  }

  std::string_view take_token() {
    const auto end = std::ranges::find_if_not(rest_, &is_token_char);
    const std::string_view token = rest_.substr(0, static_cast<std::size_t>(end - rest_.begin()));
    rest_.remove_prefix(token.size());
    return token;
  }

  void skip(std::string_view characters) {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(characters), rest_.size()));
  }

  std::string_view rest_;
  std::vector<Challenge> challenges_;
};

}  // namespace

const std::string* Challenge::find(std::string_view name) const {
  const auto found = std::ranges::find(parameters, name, &Parameter::name);
  return found == parameters.end() ? nullptr : &found->value;
}

std::vector<Challenge> parse_challenges(std::string_view field) {
  return ChallengeReader(field).read();
}

std::optional<std::chrono::seconds> parse_retry_after(std::string_view field,
                                                      std::chrono::system_clock::time_point now) {
  const std::string_view text = trim(field);
  constexpr std::uint64_t kLongest = std::uint64_t{366} * 24 * 60 * 60;
  if (const auto seconds = parse_number(text)) {
    return std::chrono::seconds(std::min(*seconds, kLongest));
  }
  constexpr std::size_t kLongestDate = 64;
  const std::time_t date =
      text.size() <= kLongestDate ? ::curl_getdate(std::string(text).c_str(), nullptr) : -1;
  if (date < 0) {
    return std::nullopt;
  }
  // In whole seconds: the clock's nanoseconds do not reach as far as dates do.
  const std::chrono::seconds wait(date - std::chrono::system_clock::to_time_t(now));
  return std::clamp(wait, std::chrono::seconds(0), std::chrono::seconds(kLongest));
}

std::optional<ContentRange> parse_content_range(std::string_view field) {
  constexpr std::string_view kUnit = "bytes ";
  std::string_view text = trim(field);
  if (!lower_case(text.substr(0, kUnit.size())).starts_with(kUnit)) {
    return std::nullopt;
  }
  text.remove_prefix(kUnit.size());
  const auto dash = text.find('-');
  const auto slash = text.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash) {
    return std::nullopt;
  }
  const auto first = parse_number(text.substr(0, dash));
  const auto last = parse_number(text.substr(dash + 1, slash - dash - 1));
  const std::string_view whole = text.substr(slash + 1);
  const auto size = parse_number(whole);
  if (!first || !last || *first > *last || (!size && whole != "*") || (size && *last >= *size)) {
    return std::nullopt;
  }
  return ContentRange{*first, *last, size};
}

std::optional<std::uint64_t> parse_content_length(std::string_view field) {
  return parse_number(trim(field));
}

std::string media_type_of(std::string_view field) {
  return lower_case(trim(field.substr(0, field.find(';'))));
}

}  // namespace msb::oci
