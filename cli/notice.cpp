// SPDX-License-Identifier: Apache-2.0
#include "cli/notice.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "cli/context.hpp"

namespace msb::cli {

Notice::~Notice() {
  if (shown_) {
    write_error("\r\x1b[K");
  }
}

void Notice::show() {
  if (!shown_ && ::isatty(STDERR_FILENO) == 1) {
    shown_ = true;
    write_error(fmt::format("{}...", text_));
  }
}

}  // namespace msb::cli
