// SPDX-License-Identifier: Apache-2.0
// What other commands have msb-registry do.
#pragma once

#include <string>

#include "base/result.hpp"

namespace msb::cli {

// Pulls an image that something needs, with progress on standard error.
Result<void> fetch_image(const std::string& reference);

}  // namespace msb::cli
