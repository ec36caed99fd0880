// SPDX-License-Identifier: Apache-2.0
// The lock between those who add or open files of a store and those who delete some.
#pragma once

#include <fcntl.h>
#include <sys/file.h>

#include <string>
#include <utility>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::oci {

// Held until it is destroyed or the process ends.
class StoreLock {
 public:
  enum class Kind { kShared, kExclusive, kExclusiveNow };

  // Waits until it is free; of kExclusiveNow, fails with EWOULDBLOCK instead.
  static Result<StoreLock> acquire(const std::string& home, Kind kind) {
    const std::string path = home + "/store.lock";
    // A file description of its own each time: that is what flock(2) counts.
    Fd fd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) {
      return fail_errno(errno, "cannot open '{}'", path);
    }
    const int operation = kind == Kind::kShared      ? LOCK_SH
                          : kind == Kind::kExclusive ? LOCK_EX
                                                     : LOCK_EX | LOCK_NB;
    while (::flock(fd.get(), operation) != 0) {
      if (errno != EINTR) {
        return fail_errno(errno, "cannot lock '{}'", path);
      }
    }
    return StoreLock(std::move(fd));
  }

 private:
  explicit StoreLock(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace msb::oci
