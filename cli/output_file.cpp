// SPDX-License-Identifier: Apache-2.0
#include "cli/output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace msb::cli {

Result<OutputFile> OutputFile::create(const std::string& path) {
  if (path == "-") {
    if (::isatty(STDOUT_FILENO) == 1) {
      return fail("an archive is nothing for a terminal: name a file with `-o FILE`");
    }
    return OutputFile(path, "", Fd(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0)));
  }
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
    if (!fd) {
      return fail_errno(errno, "cannot write '{}'", path);
    }
    return OutputFile(path, "", std::move(fd));
  }
  std::string temporary = path + ".XXXXXX";
  Fd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) {
    return fail_errno(errno, "cannot create a file beside '{}'", path);
  }
  const mode_t mask = ::umask(0);
  ::umask(mask);
  if (::fchmod(fd.get(), 0666 & ~mask) != 0) {
    return fail_errno(errno, "cannot set the mode of '{}'", temporary);
  }
  return OutputFile(path, std::move(temporary), std::move(fd));
}

OutputFile::~OutputFile() {
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
  }
}

Result<void> OutputFile::finish() {
  if (temporary_.empty()) {
    return {};
  }
  if (::fsync(fd_.get()) != 0) {
    return fail_errno(errno, "cannot write '{}' to disk", path_);
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return fail_errno(errno, "cannot put '{}' in place", path_);
  }
  temporary_.clear();
  return {};
}

}  // namespace msb::cli
