// SPDX-License-Identifier: Apache-2.0
// Where microsandbox keeps what it makes.
#pragma once

#include <string>

#include "base/result.hpp"

namespace msb {

// $MSB_HOME, else microsandbox in the XDG data directory (XDG Base Directory Specification). Fails
// when neither is set to an absolute path and there is no $HOME.
Result<std::string> home_directory();

}  // namespace msb
