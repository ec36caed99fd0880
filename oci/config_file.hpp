// SPDX-License-Identifier: Apache-2.0
// The user's own configuration files: small, read whole, replaced whole.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace msb::oci {

// The content of the file at `path`; nothing when it does not exist. Fails for what is no regular
// file or larger than kMaxDocumentSize, and when it cannot be read.
Result<std::optional<std::string>> read_config_file(const std::string& path);

// Replaces the file at `path` by one with `content` and mode 0600, or creates it and the
// directories above it (0700). Either the old or the new content is there, whatever happens. A
// symbolic link is followed: what it names is replaced.
Result<void> replace_config_file(const std::string& path, std::string_view content);

// The value of an environment variable that names an absolute path; else empty.
std::string absolute_path_from_environment(const char* variable);

}  // namespace msb::oci
