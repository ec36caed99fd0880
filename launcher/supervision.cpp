// SPDX-License-Identifier: Apache-2.0
#include "launcher/supervision.hpp"

namespace msb::launcher {

Result<void> check_supervision(const SupervisionOptions& options, bool process) {
  if (options.idle && process) {
    return fail("--idle is a sandbox without a command; leave out the command and --tty");
  }
  if (options.background && options.may_detach) {
    return fail("--detach-keys has no meaning with --background; leave one of them out");
  }
  return {};
}

}  // namespace msb::launcher
