// SPDX-License-Identifier: Apache-2.0
// What a FUSE request leads to. Bytes of files are left to the caller to move.
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "virtio/fs/fuse_message.hpp"
#include "virtio/fs/shared_files.hpp"

namespace msb::virtio {

// No answer goes back; the buffers are returned with length 0.
struct FuseSilence {};

// An answer: `error` is 0 or a negative errno; the payload follows the fuse_out_header when there
// is no error.
struct FuseReply {
  std::int32_t error = 0;
  std::vector<std::byte> payload;
};

// Bytes [offset, offset + size) of a file, cut at its end, to be fetched. `keep` keeps it open.
struct FuseRead {
  int file;
  std::uint64_t offset;
  std::uint64_t size;
  std::shared_ptr<const OpenFile> keep;  // null: of the tree, which lives as long as the server
};

// The `size` bytes behind the first kFuseWriteHeader of the request, to be put into a file. The
// answer is a fuse_write_out.
struct FuseWrite {
  std::shared_ptr<const OpenFile> file;
  std::uint64_t offset;
  std::uint32_t size;
  bool at_end;  // wherever that is by then (O_APPEND)
};

// A file's data, and with `whole` all about it, is to be brought to the disk. The answer is empty.
struct FuseSync {
  std::shared_ptr<const OpenFile> file;
  bool whole;
};

using FuseAnswer = std::variant<FuseSilence, FuseReply, FuseRead, FuseWrite, FuseSync>;

// Most pages that a READ may ask for, or a WRITE bring (fuse_init_out.max_pages); the header
// descriptors come on top.
inline constexpr std::uint16_t kFuseMaxPages = 256;
// The same in bytes: a guest that asks for more gets this much.
inline constexpr std::uint64_t kFuseMaxTransfer = std::uint64_t{kFuseMaxPages} * 4096;

// Bytes of a WRITE in front of the data: fuse_in_header and fuse_write_in.
inline constexpr std::size_t kFuseWriteHeader = 80;

// Bytes of a request that the server has to see, at most: what a SETXATTR or BATCH_FORGET may have.
// Those beyond, which only a WRITE has, it leaves alone.
inline constexpr std::size_t kMaxFuseRequest = std::size_t{68} * 1024;

// Nothing changes there, so the guest may remember it for as long as it runs.
inline constexpr std::uint64_t kFuseForeverSeconds = 1U << 30;

inline constexpr std::uint32_t kFopenNoFlush = 1U << 5;  // 7.35

inline FuseReply refuse(int error) {
  return {-error, {}};
}

template <typename T>
FuseReply reply_with(const T& value) {
  FuseReply reply;
  append(reply.payload, value);
  return reply;
}

inline FuseReply reply_bytes(std::span<const std::byte> bytes) {
  return {0, {bytes.begin(), bytes.end()}};
}

// Entries of a directory, until there is no room for more.
class FuseListing {
 public:
  FuseListing(std::size_t room, bool plus) : room_(std::min(room, kMost)), plus_(plus) {}

  // Whether one with such a name fits.
  [[nodiscard]] bool fits(std::string_view name) const {
    return reply_.payload.size() + size_of(name) <= room_;
  }
  // `entry`: for a READDIRPLUS; node 0: nothing is said of it.
  void add(const DirectoryEntry& what, const fuse_entry_out& entry) {
    const std::size_t start = reply_.payload.size();
    reply_.payload.resize(start + size_of(what.name));
    std::byte* at = &reply_.payload[start];
    if (plus_) {
      std::memcpy(at, &entry, sizeof entry);
      at += sizeof entry;
    }
    fuse_dirent fixed{};
    fixed.ino = what.inode;
    fixed.off = what.next;
    fixed.namelen = static_cast<std::uint32_t>(what.name.size());
    fixed.type = what.type;
    std::memcpy(at, &fixed, FUSE_NAME_OFFSET);
    std::memcpy(at + FUSE_NAME_OFFSET, what.name.data(), what.name.size());
  }
  [[nodiscard]] bool empty() const { return reply_.payload.empty(); }
  FuseReply take() { return std::move(reply_); }

 private:
  static constexpr std::size_t kMost = std::size_t{64} * 1024;
  [[nodiscard]] std::size_t size_of(std::string_view name) const {
    return FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name.size()) + (plus_ ? sizeof(fuse_entry_out) : 0);
  }
  std::size_t room_;
  bool plus_;
  FuseReply reply_;
};

}  // namespace msb::virtio
