// SPDX-License-Identifier: Apache-2.0
// Where the launcher finds the other parts of the product, and where paths lead.
#pragma once

#include <string>

#include "base/result.hpp"

namespace msb::launcher {

// The directory of the running program.
Result<std::string> program_directory();

// The guest kernel and the initramfs of this installation (share/microsandbox beside bin) or of
// this build tree. Fails when there is neither, naming where it looked.
Result<std::string> default_kernel();
Result<std::string> default_initramfs();

// Where /dev/fd/N, a descriptor that was handed to us, leads, and what is below it, as users know
// it. Other paths are as they were written.
std::string shown_path(const std::string& path);

}  // namespace msb::launcher
