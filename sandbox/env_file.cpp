// SPDX-License-Identifier: Apache-2.0
#include "sandbox/env_file.hpp"

#include "oci/printable.hpp"

namespace msb::sandbox {

namespace {

constexpr std::string_view kBlanks = " \t\r";

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) {
    return {};
  }
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::string_view without_quotes(std::string_view value) {
  const bool quoted = value.size() >= 2 && (value.front() == '"' || value.front() == '\'') &&
                      value.back() == value.front();
  return quoted ? value.substr(1, value.size() - 2) : value;
}

}  // namespace

Result<std::vector<std::string>> parse_env_file(std::string_view text, std::string_view name) {
  std::vector<std::string> variables;
  if (text.find('\0') != std::string_view::npos) {
    return fail("'{}' is no file of variables: it has a NUL byte", oci::printable(name));
  }
  constexpr std::string_view kExport = "export ";
  for (std::size_t line = 1; !text.empty(); ++line) {
    const std::size_t end = text.find('\n');
    std::string_view rest = trim(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (rest.empty() || rest.front() == '#') {
      continue;
    }
    if (rest.starts_with(kExport)) {
      rest = trim(rest.substr(kExport.size()));
    }
    const std::size_t equals = rest.find('=');
    if (equals == 0 || equals == std::string_view::npos) {
      return fail("{}:{}: a line of a file of variables is NAME=VALUE, and '{}' is not",
                  oci::printable(name), line, oci::printable(rest, 64));
    }
    variables.push_back(fmt::format("{}={}", trim(rest.substr(0, equals)),
                                    without_quotes(trim(rest.substr(equals + 1)))));
  }
  return variables;
}

}  // namespace msb::sandbox
