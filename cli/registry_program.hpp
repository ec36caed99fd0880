// SPDX-License-Identifier: Apache-2.0
// msb-registry, which carries out the commands that speak to registries: msb itself starts faster
// without the libraries that takes, and most of what it does needs none of them.
#pragma once

#include <string>

#include "base/result.hpp"

namespace msb::cli {

// Becomes it, with this program's own arguments. Returns only when that fails.
Error become_registry_program();

// Pulls an image that something needs, with progress on standard error.
Result<void> fetch_image(const std::string& reference);

}  // namespace msb::cli
