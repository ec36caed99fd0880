// SPDX-License-Identifier: Apache-2.0
// Locks of the guest's processes on files of shares, as the host's programs and other sandboxes
// see them: fcntl(2)'s on ranges of bytes, and flock(2)'s.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "base/fd.hpp"
#include "virtio/fs/host_file.hpp"
#include "virtio/fs/lock_ranges.hpp"

namespace msb::virtio {

struct OpenFile;
struct Share;

// Each owner of locks in a file has an open file description of its own on the host, whose locks
// (F_OFD_SETLK) keep out those of every other owner, in the guest or not.
class FileLocks {
 public:
  // At most `max_ranges` that are locked at a time, and `max_owners` that have any.
  FileLocks(std::size_t max_ranges, std::size_t max_owners)
      : max_ranges_(max_ranges), max_owners_(max_owners) {}

  // Locks or unlocks bytes of an open file for an owner: EAGAIN when that cannot be now, ENOLCK
  // when there are too many, EOPNOTSUPP when locks of this share are the guest's own business.
  Outcome<void> set(const OpenFile& file, std::uint64_t owner, const LockRange& range);
  // A lock that keeps `owner` from having this one, or one of type F_UNLCK.
  Outcome<LockRange> find_conflict(const OpenFile& file, std::uint64_t owner,
                                   const LockRange& range) const;
  // flock(2): the lock belongs to the open file and ends with it.
  static Outcome<void> set_whole(const OpenFile& file, short type);

  // Ends all locks of an owner in a node, of a node, of a share, or all.
  void drop(std::uint64_t node, std::uint64_t owner);
  void drop(std::uint64_t node);
  void drop(const Share& share);
  void clear();

  [[nodiscard]] std::size_t ranges() const { return count_; }
  [[nodiscard]] std::size_t owners() const { return owners_.size(); }

 private:
  struct Owner {
    Fd file;
    bool writable = false;
    std::shared_ptr<Share> share;
    LockRanges ranges;
  };
  using Owners = std::map<std::pair<std::uint64_t, std::uint64_t>, Owner>;  // by node and owner

  static Outcome<Owner> open(const OpenFile& file, bool to_write);
  static Outcome<void> make_writable(const OpenFile& file, Owner& owner);
  Owners::iterator erase(Owners::iterator position);

  const std::size_t max_ranges_;
  const std::size_t max_owners_;
  std::size_t count_ = 0;
  Owners owners_;
};

}  // namespace msb::virtio
