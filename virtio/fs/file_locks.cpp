// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/file_locks.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <limits>

#include "virtio/fs/shared_files.hpp"

namespace msb::virtio {

namespace {

constexpr std::uint64_t kMaxOffset = std::numeric_limits<off_t>::max();

Outcome<struct flock> host_lock(const LockRange& range) {
  const bool known = range.type == F_RDLCK || range.type == F_WRLCK || range.type == F_UNLCK;
  if (!known || range.first > range.last || range.last > kMaxOffset) {
    return std::unexpected(EINVAL);
  }
  struct flock lock{};  // l_pid is 0, as for F_OFD_* it has to be
  lock.l_type = range.type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(range.first);
  lock.l_len = range.last == kMaxOffset ? 0 : static_cast<off_t>(range.last - range.first + 1);
  return lock;
}

// The locks of a share that is only read are kept from the host: they would keep its own programs
// from writing.
Outcome<void> check_share(const OpenFile& file) {
  if (file.share->read_only) {
    return std::unexpected(EOPNOTSUPP);
  }
  return {};
}

std::unexpected<int> failed_lock() {
  switch (errno) {
    case EACCES:
      return std::unexpected(EAGAIN);
    case ENOSYS:
      return std::unexpected(EOPNOTSUPP);  // a file system without locks
    default:
      return std::unexpected(errno);
  }
}

Outcome<void> lock_range(int descriptor, const LockRange& range) {
  auto lock = host_lock(range);
  if (!lock) {
    return std::unexpected(lock.error());
  }
  if (::fcntl(descriptor, F_OFD_SETLK, &*lock) != 0) {
    return failed_lock();
  }
  return {};
}

}  // namespace

// To write only where that is wanted: it keeps the host from starting the file as a program, and
// who watches the file is told when it is closed.
Outcome<FileLocks::Owner> FileLocks::open(const OpenFile& file, bool to_write) {
  auto opened = reopen(file.file.get(), to_write ? O_RDWR : O_RDONLY);
  if (!opened && opened.error() == EACCES) {
    opened = reopen(file.file.get(), O_WRONLY);  // which is all that the host allows
  }
  if (!opened) {
    const bool too_many = opened.error() == EMFILE || opened.error() == ENFILE;
    return std::unexpected(too_many ? ENOLCK : opened.error());
  }
  return Owner{std::move(*opened), to_write, file.share, {}};
}

// Locks to read are shared, so that the new description can have them before the old one goes.
Outcome<void> FileLocks::make_writable(const OpenFile& file, Owner& owner) {
  auto opened = open(file, true);
  if (!opened) {
    return std::unexpected(opened.error());
  }
  for (const auto& [first, range] : owner.ranges.all()) {
    if (auto locked = lock_range(opened->file.get(), range); !locked) {
      return locked;
    }
  }
  owner.file = std::move(opened->file);
  owner.writable = true;
  return {};
}

Outcome<void> FileLocks::set(const OpenFile& file, std::uint64_t owner, const LockRange& range) {
  if (const auto lock = host_lock(range); !lock) {
    return std::unexpected(lock.error());
  }
  if (const auto checked = check_share(file); !checked) {
    return checked;
  }
  const bool unlock = range.type == F_UNLCK;
  const bool to_write = range.type == F_WRLCK;
  auto position = owners_.find({file.node, owner});
  if (position == owners_.end()) {
    if (unlock) {
      return {};
    }
    if (owners_.size() >= max_owners_) {
      return std::unexpected(ENOLCK);
    }
    // Who waits for a lock asks again and again, for which nothing need be opened.
    const auto kept = find_conflict(file, owner, range);
    if (kept && kept->type != F_UNLCK) {
      return std::unexpected(EAGAIN);
    }
    auto opened = open(file, to_write);
    if (!opened) {
      return std::unexpected(opened.error());
    }
    position = owners_.emplace(std::pair(file.node, owner), std::move(*opened)).first;
  }
  Owner& held = position->second;
  // The host would keep as many as it is asked for; unlocking makes two of one, too.
  const bool all = unlock && range.first == 0 && range.last == kMaxOffset;
  Outcome<void> done;
  if (!all && count_ + 2 > max_ranges_) {
    done = std::unexpected(ENOLCK);
  } else if (to_write && !held.writable) {
    done = make_writable(file, held);
  }
  if (done) {
    done = lock_range(held.file.get(), range);
  }
  if (done) {
    count_ -= held.ranges.size();
    held.ranges.set(range);
    count_ += held.ranges.size();
  }
  if (held.ranges.size() == 0) {
    erase(position);
  }
  return done;
}

Outcome<LockRange> FileLocks::find_conflict(const OpenFile& file, std::uint64_t owner,
                                            const LockRange& range) const {
  auto lock = host_lock(range);
  if (!lock) {
    return std::unexpected(lock.error());
  }
  if (const auto checked = check_share(file); !checked) {
    return std::unexpected(checked.error());
  }
  const auto held = owners_.find({file.node, owner});
  const int descriptor = held == owners_.end() ? file.file.get() : held->second.file.get();
  if (::fcntl(descriptor, F_OFD_GETLK, &*lock) != 0) {
    return failed_lock();
  }
  if (lock->l_type == F_UNLCK) {
    return LockRange{range.first, range.last, F_UNLCK};
  }
  const auto first = static_cast<std::uint64_t>(lock->l_start);
  const std::uint64_t last =
      lock->l_len == 0 ? kMaxOffset : first + static_cast<std::uint64_t>(lock->l_len) - 1;
  return LockRange{first, last, lock->l_type};
}

Outcome<void> FileLocks::set_whole(const OpenFile& file, short type) {
  if (const auto checked = check_share(file); !checked) {
    return checked;
  }
  int operation = LOCK_UN;
  if (type == F_RDLCK) {
    operation = LOCK_SH;
  } else if (type == F_WRLCK) {
    operation = LOCK_EX;
  } else if (type != F_UNLCK) {
    return std::unexpected(EINVAL);
  }
  if (::flock(file.file.get(), operation | LOCK_NB) != 0) {
    return failed_lock();
  }
  return {};
}

FileLocks::Owners::iterator FileLocks::erase(Owners::iterator position) {
  count_ -= position->second.ranges.size();
  return owners_.erase(position);
}

void FileLocks::drop(std::uint64_t node, std::uint64_t owner) {
  if (const auto found = owners_.find({node, owner}); found != owners_.end()) {
    erase(found);
  }
}

void FileLocks::drop(std::uint64_t node) {
  auto position = owners_.lower_bound({node, 0});
  while (position != owners_.end() && position->first.first == node) {
    position = erase(position);
  }
}

void FileLocks::drop(const Share& share) {
  for (auto position = owners_.begin(); position != owners_.end();) {
    position = position->second.share.get() == &share ? erase(position) : std::next(position);
  }
}

void FileLocks::clear() {
  owners_.clear();
  count_ = 0;
}

}  // namespace msb::virtio
