// SPDX-License-Identifier: Apache-2.0
// Errors as values. A function that can fail for reasons outside the program returns Result<T>; the
// error is one sentence that says what failed, on what, and, where it is known, what to do about
// it.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <expected>
#include <string>
#include <system_error>
#include <utility>

namespace msb {

struct Error {
  std::string message;  // one sentence, without a final full stop
  int code = 0;         // the errno behind it, or 0

  // The same error with the context of the caller in front: "context: message".
  [[nodiscard]] Error within(std::string_view context) const {
    return Error{fmt::format("{}: {}", context, message), code};
  }
};

template <typename T>
using Result = std::expected<T, Error>;

// An error with a formatted message and no errno.
template <typename... Args>
[[nodiscard]] std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...), 0});
}

// An error for a failed system call: the formatted message, then what `code` (an errno) means.
template <typename... Args>
[[nodiscard]] std::unexpected<Error> fail_errno(int code, fmt::format_string<Args...> format,
                                                Args&&... args) {
  return std::unexpected(
      Error{fmt::format("{}: {}", fmt::format(format, std::forward<Args>(args)...),
                        std::generic_category().message(code)),
            code});
}

}  // namespace msb
