// SPDX-License-Identifier: Apache-2.0
// Files of a store that are whole or not there: made without a name, made durable, then named.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::oci {

// Creates `path` and the missing directories above it, mode 0700.
Result<void> make_directories(const std::string& path);

// A file while it is being made. Where the file system can, it has no name until publish();
// elsewhere it has a temporary one, locked as long as its maker lives.
class Draft {
 public:
  // In the directory `directory`, which must stay open. Fails with the errno of the system.
  static Result<Draft> create(int directory);
  Draft(Draft&& other) noexcept
      : directory_(other.directory_),
        fd_(std::move(other.fd_)),
        name_(std::exchange(other.name_, {})) {}
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;
  Draft& operator=(Draft&&) = delete;
  ~Draft();

  [[nodiscard]] int fd() const { return fd_.get(); }

  // Makes the content durable, then gives it `name`, unless that exists by now. The name is durable
  // when the directory is: sync_directory().
  Result<void> publish(const std::string& name) const;

 private:
  Draft(int directory, Fd fd, std::string name)
      : directory_(directory), fd_(std::move(fd)), name_(std::move(name)) {}

  int directory_;
  Fd fd_;
  std::string name_;  // empty when it has none
};

// Makes the names in a directory durable.
Result<void> sync_directory(int directory);

// Held by whoever makes the file `name` in `directory`, so that others wait for it instead of doing
// the same work; freed with the object or the process. A file that starts with a dot stands for it.
class MakerLock {
 public:
  // Waits while another process, or another thread, holds it; `on_wait` is called once before that.
  template <typename OnWait>
  static Result<MakerLock> acquire(int directory, const std::string& name, OnWait on_wait) {
    auto lock = try_acquire(directory, name, /*wait=*/false);
    if (lock || lock.error().code != EWOULDBLOCK) {
      return lock;
    }
    on_wait();
    return try_acquire(directory, name, /*wait=*/true);
  }
  MakerLock(MakerLock&&) = default;
  MakerLock& operator=(MakerLock&&) = delete;
  MakerLock(const MakerLock&) = delete;
  MakerLock& operator=(const MakerLock&) = delete;
  ~MakerLock();

 private:
  MakerLock(int directory, std::string name, Fd fd)
      : directory_(directory), name_(std::move(name)), fd_(std::move(fd)) {}
  static Result<MakerLock> try_acquire(int directory, const std::string& name, bool wait);

  int directory_;
  std::string name_;
  Fd fd_;
};

// Deletes the drafts and locks in a directory whose processes were killed.
void remove_abandoned(int directory);

// The names in a directory but for those that start with a dot.
Result<std::vector<std::string>> list_names(int directory);

}  // namespace msb::oci
