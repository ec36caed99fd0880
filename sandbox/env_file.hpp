// SPDX-License-Identifier: Apache-2.0
// Files of variables, one NAME=VALUE a line, as container engines read them. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace msb::sandbox {

inline constexpr std::size_t kMaxEnvFile = 1024 * 1024;  // bytes

// Blank lines and those that begin with '#' are passed over; "export " in front, and quotation
// marks around the value, are dropped. Fails with the number of a line that is something else: a
// name without a value would take it out of the caller's environment. `name`: the file's, for
// errors.
Result<std::vector<std::string>> parse_env_file(std::string_view text, std::string_view name);

}  // namespace msb::sandbox
