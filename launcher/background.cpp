// SPDX-License-Identifier: Apache-2.0
#include "launcher/background.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/fd.hpp"

namespace msb::launcher {

Result<void> go_into_background() {
  Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) {
    return fail_errno(errno, "cannot open /dev/null");
  }
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (null.get() == stream) {
      // One that was closed: the descriptor is it already.
      ::fcntl(stream, F_SETFD, 0);
    } else if (::dup2(null.get(), stream) < 0) {
      return fail_errno(errno, "cannot replace a standard stream");
    }
  }
  if (null.get() <= STDERR_FILENO) {
    [[maybe_unused]] const int stays = null.release();
  }
  ::setsid();
  return {};
}

}  // namespace msb::launcher
