// SPDX-License-Identifier: Apache-2.0
// What one attempt at a request comes to: a result, or a failure that says whether another attempt
// makes sense.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <optional>
#include <utility>

#include "base/result.hpp"

namespace msb::oci {

struct Failure {
  enum class Kind : std::uint8_t {
    kFinal,        // the same would come of it again
    kTransient,    // may pass: a cut or stalled transfer, a busy server
    kUnreachable,  // there was no connection; may pass, but a wrong name or address is likelier
    kNoTls,        // what answered does not speak TLS
  };

  Error error;
  Kind kind = Kind::kFinal;
  // How long the server wants to be left alone.
  std::optional<std::chrono::seconds> retry_after = std::nullopt;
};

template <typename T>
using Attempt = std::expected<T, Failure>;

template <typename... Args>
[[nodiscard]] std::unexpected<Failure> fail_as(Failure::Kind kind,
                                               fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Failure{fail(format, std::forward<Args>(args)...).error(), kind});
}

}  // namespace msb::oci
