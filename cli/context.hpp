// SPDX-License-Identifier: Apache-2.0
// What every command of `msb` starts from, and how it ends.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.hpp"
#include "oci/settings.hpp"
#include "oci/store/store.hpp"

namespace msb::cli {

inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

enum class Format : std::uint8_t { kTable, kJson };

using Json = nlohmann::ordered_json;

// The image store below $MSB_HOME, and the user's settings.
struct Context {
  oci::Store store;
  oci::Settings settings;

  static Result<Context> open();
};

// Writes text to standard output; fails when that cannot take it.
Result<void> print(std::string_view text);
// Writes a document, indented. Bytes that are no UTF-8 become U+FFFD.
Result<void> print_json(const Json& document);

// Writes text to standard error, which may be closed or full: what cannot be told there cannot be
// told at all, and is no reason to fail.
void write_error(std::string_view text);
// "msb: SENTENCE" on standard error.
void complain(const std::string& sentence);

}  // namespace msb::cli
