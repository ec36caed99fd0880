// SPDX-License-Identifier: Apache-2.0
// A program without a terminal.
#pragma once

#include "base/result.hpp"

namespace msb::launcher {

// Replaces the standard streams by /dev/null, and leaves the session of the terminal; a process
// that leads a group, as one that a shell started does, cannot. Fails when there is no /dev/null;
// then nothing has changed.
Result<void> go_into_background();

}  // namespace msb::launcher
