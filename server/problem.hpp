// SPDX-License-Identifier: Apache-2.0
// Why a request of a client was not done: what every interface of the server tells in its own way.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.hpp"

namespace msb::server {

enum class Reason : std::uint8_t {
  kInvalid,      // the request has something that cannot be
  kNoKey,        // a key is needed
  kBadKey,       // there is no such key, or not any more
  kExpiredKey,   // it was valid for a time
  kForbidden,    // the key, or the operator, does not allow it
  kDenied,       // the sandbox's own system does not, to the user that it was done as
  kNotFound,     // there is no such thing
  kNoMethod,     // of HTTP, at that path
  kConflict,     // not in the state that things are in
  kTooLarge,     // the request itself
  kSlow,         // the request did not come in time
  kFull,         // as much as is allowed is there already; later there may be room
  kFailed,       // the sandbox, or what was asked of it, failed
  kTimeout,      // it took longer than it may
  kUnavailable,  // the server is about to end
  kInternal,     // the server's own mistake
};

struct ReasonInfo {
  unsigned status;        // of HTTP
  std::string_view word;  // the code of our own interface
  int number;             // the code of the 0.2 line
};
const ReasonInfo& info(Reason reason);

struct Problem {
  Reason reason = Reason::kInternal;
  std::string message;                  // one sentence, without a final full stop
  std::optional<unsigned> retry_after;  // seconds
};

template <typename T>
using Outcome = std::expected<T, Problem>;

template <typename... Args>
[[nodiscard]] std::unexpected<Problem> refuse(Reason reason, fmt::format_string<Args...> format,
                                              Args&&... args) {
  return std::unexpected(
      Problem{reason, fmt::format(format, std::forward<Args>(args)...), std::nullopt});
}

[[nodiscard]] inline std::unexpected<Problem> refuse(Reason reason, const Error& error) {
  return std::unexpected(Problem{reason, error.message, std::nullopt});
}

// To requests that come when the server is told to end, and to those that would go on without an
// end.
Problem about_to_end();

}  // namespace msb::server
