// SPDX-License-Identifier: Apache-2.0
#include "sandbox/locked_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace msb::sandbox {

namespace {

Fd open_lock(const std::string& path, int flags) {
  return Fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600));
}

// Of the whole file, by the open file description (fcntl(2), F_OFD_SETLK), so that who inherits it
// has it too, and others can ask without taking it.
struct flock whole_file() {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

}  // namespace

Result<std::optional<Fd>> take_lock(const std::string& path) {
  Fd file = open_lock(path, O_CREAT);
  if (!file) {
    return fail_errno(errno, "cannot open '{}'", path);
  }
  struct flock lock = whole_file();
  if (::fcntl(file.get(), F_OFD_SETLK, &lock) == 0) {
    return std::optional<Fd>(std::move(file));
  }
  if (errno == EAGAIN || errno == EACCES) {
    return std::nullopt;
  }
  return fail_errno(errno, "cannot lock '{}'", path);
}

Result<Fd> wait_for_lock(const std::string& path) {
  Fd file = open_lock(path, O_CREAT);
  if (!file) {
    return fail_errno(errno, "cannot open '{}'", path);
  }
  struct flock lock = whole_file();
  while (::fcntl(file.get(), F_OFD_SETLKW, &lock) != 0) {
    if (errno != EINTR) {
      return fail_errno(errno, "cannot lock '{}'", path);
    }
  }
  return file;
}

Result<bool> is_locked(const std::string& path) {
  const Fd file = open_lock(path, 0);
  if (!file) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return false;
    }
    return fail_errno(errno, "cannot open '{}'", path);
  }
  struct flock lock = whole_file();
  if (::fcntl(file.get(), F_OFD_GETLK, &lock) != 0) {
    return fail_errno(errno, "cannot ask for the lock of '{}'", path);
  }
  return lock.l_type != F_UNLCK;
}

}  // namespace msb::sandbox
