// SPDX-License-Identifier: Apache-2.0
#include "cli/output_file.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace msb::cli {
namespace {

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// Gives a file that has no name this one, unless it is taken.
bool link_file(int fd, const std::string& name) {
  const std::string self = fmt::format("/proc/self/fd/{}", fd);
  return ::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
}

}  // namespace

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
  // Without a name it is gone with this process, however that ends.
  Fd unnamed(::open(directory_of(path).c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666));
  if (unnamed) {
    return OutputFile(path, "", std::move(unnamed), /*unnamed=*/true);
  }
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) {
    return fail_errno(errno, "cannot create a file beside '{}'", path);
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
  if (temporary_.empty() && !unnamed_) {
    return {};
  }
  if (::fsync(fd_.get()) != 0) {
    return fail_errno(errno, "cannot write '{}' to disk", path_);
  }
  if (unnamed_) {
    if (link_file(fd_.get(), path_)) {
      return {};
    }
    // A link does not replace a file, but a rename does.
    std::uint64_t random = 0;
    if (::getrandom(&random, sizeof random, 0) != sizeof random) {
      return fail_errno(errno, "cannot get random bytes");
    }
    std::string name = fmt::format("{}.{:016x}", path_, random);
    if (!link_file(fd_.get(), name)) {
      return fail_errno(errno, "cannot put '{}' in place", path_);
    }
    temporary_ = std::move(name);
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return fail_errno(errno, "cannot put '{}' in place", path_);
  }
  temporary_.clear();
  return {};
}

}  // namespace msb::cli
