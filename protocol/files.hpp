// SPDX-License-Identifier: Apache-2.0
// The guest's file service, over a connection of its own: one operation at a time, in constant
// memory whatever the size of a file or a tree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/msb_exec.h"

namespace msb::protocol {

inline constexpr std::uint32_t kSameOwner = UINT32_MAX;  // leaves the user or the group
inline constexpr std::uint64_t kWholeFile = UINT64_MAX;

struct WriteOptions {
  std::uint32_t mode = 0644;  // of a new file
  std::uint32_t user = kSameOwner;
  std::uint32_t group = kSameOwner;
  std::uint32_t flags = 0;   // MSB_FILE_PARENTS, ATOMIC, APPEND, EXCLUSIVE, UPDATE, SYNC
  std::uint64_t offset = 0;  // with UPDATE, bytes
};

struct UnpackOptions {
  std::uint32_t user = kSameOwner;  // of everything, instead of the stream's
  std::uint32_t group = kSameOwner;
  std::uint32_t flags = 0;  // MSB_FILE_PARENTS, SYNC
};

// Used on the loop's thread. An operation begins when the one before it is done: not earlier (see
// busy()); its `done` runs exactly once, and may begin the next. It runs from inside the call when
// the request is one that the agent would refuse for its form, or the connection has broken
// already. Paths are absolute paths in the guest. May be destroyed at any time, also from inside a
// callback: that ends what is under way, and nothing is called any more.
class Files {
 public:
  template <typename T>
  using Done = std::function<void(Answer<T>)>;
  using Entry = std::function<void(const FileEntry&)>;
  // A piece of a file. Return false to get no more until resume(); the piece counts as taken.
  using Data = std::function<bool(std::span<const std::byte>)>;
  // Everything given so far has been handed to the connection: it is time for send() or
  // end_data(), now or later.
  using More = std::function<void()>;

  // `socket`: from an Opener for the agent's port.
  Files(AsyncIo& io, Fd socket);
  Files(Files&&) noexcept;
  Files& operator=(Files&& other) noexcept;
  ~Files();

  [[nodiscard]] bool open() const;  // false once the connection has broken
  [[nodiscard]] bool busy() const;  // an operation is under way

  // `follow`: what a symbolic link at the end leads to.
  void stat(const std::string& path, bool follow, Done<FileEntry> done);
  // `each` gets plain names, never "." or ".."; `done` how many.
  void list(const std::string& path, Entry each, Done<std::uint64_t> done);
  // `each` gets relative paths without ".." of everything below. `depth`: levels to go down, 0 for
  // all.
  void walk(const std::string& path, std::uint64_t depth, Entry each, Done<std::uint64_t> done);
  // What the sandbox changed of its image: `each` gets relative paths with an msb_file_change in
  // `fields.change`, a directory before what is in it.
  void diff(Entry each, Done<std::uint64_t> done);
  // At most `length` bytes from `offset` on; `done` gets how many came.
  void read(const std::string& path, std::uint64_t offset, std::uint64_t length, Data data,
            Done<std::uint64_t> done);
  // A tar stream of what is below `path`; `done` gets the number of its entries.
  void pack(const std::string& path, Data data, Done<std::uint64_t> done);
  // The content is what send() is given until end_data(); `done` gets how many bytes were written.
  void write(const std::string& path, const WriteOptions& options, More more,
             Done<std::uint64_t> done);
  // The same with a tar stream; `done` gets the number of its entries.
  void unpack(const std::string& path, const UnpackOptions& options, More more,
              Done<std::uint64_t> done);

  // `flags`: those that the protocol gives the request.
  void mkdir(const std::string& path, std::uint32_t mode, std::uint32_t user, std::uint32_t group,
             std::uint32_t flags, Done<void> done);
  void remove(const std::string& path, std::uint32_t flags, Done<void> done);
  void rename(const std::string& path, const std::string& new_path, std::uint32_t flags,
              Done<void> done);
  void chmod(const std::string& path, std::uint32_t mode, std::uint32_t flags, Done<void> done);
  void chown(const std::string& path, std::uint32_t user, std::uint32_t group, std::uint32_t flags,
             Done<void> done);
  void symlink(const std::string& target, const std::string& path, std::uint32_t user,
               std::uint32_t group, Done<void> done);
  void readlink(const std::string& path, Done<std::string> done);

  // For read() and pack(), after `data` returned false.
  void resume();
  // For write() and unpack(), while they are under way. What was given and has not left is kept in
  // memory: `more` says when it has.
  void send(std::span<const std::byte> bytes);
  void end_data();

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace msb::protocol
