// SPDX-License-Identifier: Apache-2.0
// Opens directories and files of the host's that are shared with a sandbox.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::launcher {

// An O_PATH descriptor of the directory or regular file at `path`, symbolic links followed. Fails
// for anything else, and for what this user cannot use.
Result<Fd> open_share(const std::string& path);

}  // namespace msb::launcher
