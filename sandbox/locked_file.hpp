// SPDX-License-Identifier: Apache-2.0
// The lock that says that a sandbox runs, held by whoever supervises it. It is handed on by
// inheritance, and ends with the last process that has it, however that ends.
#pragma once

#include <optional>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::sandbox {

// Takes the lock of `path`, which is made when missing; nothing when another process has it.
Result<std::optional<Fd>> take_lock(const std::string& path);
// The same; waits for it.
Result<Fd> wait_for_lock(const std::string& path);
// Whether somebody has it. Asking takes nothing.
Result<bool> is_locked(const std::string& path);

}  // namespace msb::sandbox
