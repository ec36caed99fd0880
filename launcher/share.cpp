// SPDX-License-Identifier: Apache-2.0
#include "launcher/share.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace msb::launcher {

Result<Fd> open_share(const std::string& path) {
  Fd file(::open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat status{};
  if (!file || ::fstat(file.get(), &status) != 0) {
    return fail_errno(errno, "cannot share \"{}\"", path);
  }
  if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) {
    return fail("cannot share \"{}\": it is neither a directory nor a regular file", path);
  }
  const int needed = S_ISDIR(status.st_mode) ? R_OK | X_OK : R_OK;
  if (::faccessat(AT_FDCWD, path.c_str(), needed, AT_EACCESS) != 0) {
    return fail_errno(errno, "cannot share \"{}\"", path);
  }
  return file;
}

}  // namespace msb::launcher
