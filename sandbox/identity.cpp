// SPDX-License-Identifier: Apache-2.0
#include "sandbox/identity.hpp"

#include <algorithm>
#include <string_view>

#include "oci/printable.hpp"

namespace msb::sandbox {

namespace {

constexpr std::size_t kMaxName = 63;

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

}  // namespace

std::string_view kind_word(Kind kind) {
  switch (kind) {
    case Kind::kTemporary:
      return "temporary";
    case Kind::kProject:
      return "project";
    case Kind::kInstalled:
      return "installed";
    case Kind::kServed:
      break;
  }
  return "server";
}

Result<Kind> parse_kind(std::string_view word) {
  for (const Kind kind : {Kind::kTemporary, Kind::kProject, Kind::kInstalled, Kind::kServed}) {
    if (word == kind_word(kind)) {
      return kind;
    }
  }
  return fail("'{}' is no kind of sandbox", oci::printable(word));
}

std::string_view purpose_word(Purpose purpose) {
  switch (purpose) {
    case Purpose::kEntered:
      return "entered";
    case Purpose::kLookedAt:
      return "looked at";
    case Purpose::kRun:
      break;
  }
  return "run";
}

Purpose parse_purpose(std::string_view word) {
  for (const Purpose purpose : {Purpose::kEntered, Purpose::kLookedAt}) {
    if (word == purpose_word(purpose)) {
      return purpose;
    }
  }
  return Purpose::kRun;
}

Result<void> check_name(std::string_view name) {
  const bool good =
      !name.empty() && name.size() <= kMaxName && is_alphanumeric(name.front()) &&
      std::ranges::all_of(name, [](char c) { return is_alphanumeric(c) || c == '_' || c == '-'; });
  if (good) {
    return {};
  }
  const std::string_view shown = name.substr(0, kMaxName);
  return fail(
      "'{}{}' is no name for a sandbox: a name has 1 to {} letters, digits, '-' and '_', and "
      "begins "
      "with a letter or digit",
      oci::printable(shown), shown.size() < name.size() ? "..." : "", kMaxName);
}

}  // namespace msb::sandbox
