// SPDX-License-Identifier: Apache-2.0
// Where the launcher finds the other parts of the product, and where it keeps what it makes.
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

// $MSB_HOME, else microsandbox in the XDG data directory (XDG Base Directory Specification). Fails
// when neither is set to an absolute path and there is no $HOME.
Result<std::string> home_directory();

}  // namespace msb::launcher
