// SPDX-License-Identifier: Apache-2.0
// The programs that serve sessions in the guest, as they stand beside this file: embedded when it
// is built, so that an image needs nothing but the interpreter.
#pragma once

#include <string_view>

namespace msb::protocol {

extern const std::string_view kPythonDriver;  // python.py
extern const std::string_view kNodeDriver;    // node.js
extern const std::string_view kShellStart;    // shell_start.sh
extern const std::string_view kShellDriver;   // shell.sh

}  // namespace msb::protocol
