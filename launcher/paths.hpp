// SPDX-License-Identifier: Apache-2.0
// Where the launcher finds the other parts of the product.
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

}  // namespace msb::launcher
