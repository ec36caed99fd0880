// SPDX-License-Identifier: Apache-2.0
// What FUSE asks of the files in shared host directories, with arguments that are already decoded.
// The guest's numbers and names are checked here; errors are those that it gets. All calls on one
// thread, which they may block for as long as the host's file system does.
#pragma once

#include <linux/fuse.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "virtio/fs/file_locks.hpp"
#include "virtio/fs/guest_owner.hpp"
#include "virtio/fs/host_file.hpp"
#include "virtio/fs/node_table.hpp"

namespace msb::virtio {

// Who asks, in the guest.
struct Caller {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t umask = 0;
};

struct Entry {
  std::uint64_t node = 0;
  fuse_attr attr{};
};

// What an OPEN or OPENDIR gave: shared by the guest's handle and the transfers under way.
struct OpenFile {
  Fd file;
  std::uint64_t node = 0;
  std::shared_ptr<Share> share;
  bool directory = false;
  bool writable = false;
  bool capability = false;  // writing has a file capability to drop
};

struct Handle {
  std::uint64_t number = 0;
  std::shared_ptr<OpenFile> file;
};

// One entry of a directory.
struct DirectoryEntry {
  std::string_view name;
  std::uint64_t inode = 0;
  std::uint64_t next = 0;  // the offset behind it
  std::uint8_t type = 0;   // DT_*
};

struct ShareLimits {
  std::size_t nodes = 1U << 20;         // inodes that the guest may know at a time
  std::size_t node_descriptors = 4096;  // of these kept open
  std::size_t handles = 1U << 16;       // files that it may have open
  std::size_t locks = 1U << 16;         // ranges of bytes that it may have locked
  std::size_t lock_owners = 4096;       // processes, each in one file, that have locked them
};

class SharedFiles {
 public:
  SharedFiles(OwnerRule rule, const ShareLimits& limits)
      : rule_(rule),
        limits_(limits),
        nodes_(limits.nodes, limits.node_descriptors),
        locks_(limits.locks, limits.lock_owners) {}

  // Shares a directory or a regular file: `root` is an O_PATH descriptor of it.
  struct Root {
    std::uint64_t node = 0;
    bool directory = false;
    std::shared_ptr<Share> share;
  };
  Result<Root> add(Fd root, bool read_only, ShareCache cache);
  // Takes a share away: its nodes and handles are unknown from now on. By the number of its root.
  void remove(std::uint64_t root);

  // Closes what is open and forgets what is known, but for the shares.
  void reset();
  // Null when there is no such node.
  [[nodiscard]] const Share* share_of(std::uint64_t id);
  // A file was locked. What is beside it belongs to what programs of both sides agree on by that
  // lock, as a database's journal does.
  void note_lock(std::uint64_t id);
  // Whether it is a file that was locked, or one beside it.
  [[nodiscard]] bool is_beside_locks(std::uint64_t id);

  // --- nodes ---
  Outcome<Entry> lookup(std::uint64_t parent, std::string_view name);
  void forget(std::uint64_t id, std::uint64_t count);
  struct Attributes {
    fuse_attr shown{};      // to the guest
    struct statx status{};  // on the host
  };
  Outcome<Attributes> attributes(std::uint64_t id);
  Outcome<fuse_attr> set_attributes(std::uint64_t id, const fuse_setattr_in& wanted);
  Outcome<std::string> read_link(std::uint64_t id);
  Outcome<fuse_kstatfs> file_system(std::uint64_t id);

  // --- entries ---
  Outcome<Entry> make_node(std::uint64_t parent, std::string_view name, std::uint32_t mode,
                           std::uint32_t device, const Caller& caller);
  Outcome<Entry> make_directory(std::uint64_t parent, std::string_view name, std::uint32_t mode,
                                const Caller& caller);
  Outcome<Entry> make_link(std::uint64_t parent, std::string_view name, const std::string& target,
                           const Caller& caller);
  Outcome<Entry> link(std::uint64_t id, std::uint64_t parent, std::string_view name);
  Outcome<void> unlink(std::uint64_t parent, std::string_view name, bool directory);
  Outcome<void> rename(std::uint64_t parent, std::string_view name, std::uint64_t new_parent,
                       std::string_view new_name, std::uint32_t flags);

  // --- open files ---
  Outcome<Handle> open(std::uint64_t id, std::uint32_t flags, bool drop_privileges);
  struct Created {
    Entry entry;
    Handle handle;
  };
  Outcome<Created> create(std::uint64_t parent, std::string_view name, std::uint32_t flags,
                          std::uint32_t mode, const Caller& caller, bool drop_privileges);
  Outcome<Created> create_unnamed(std::uint64_t parent, std::uint32_t flags, std::uint32_t mode,
                                  const Caller& caller);
  Outcome<Handle> open_directory(std::uint64_t id);
  // Null when the guest has no such handle.
  [[nodiscard]] std::shared_ptr<OpenFile> find(std::uint64_t handle) const;
  void release(std::uint64_t handle) { handles_.erase(handle); }
  // Calls `take` for entries from `offset` on until it says no. "." and ".." are among them.
  Outcome<void> list(const std::shared_ptr<OpenFile>& directory, std::uint64_t offset,
                     std::size_t room, const std::function<bool(const DirectoryEntry&)>& take);
  // The inode number that the guest sees for one of the host's in a node's share.
  std::uint64_t inode_number(std::uint64_t device, std::uint64_t number);
  // Before the guest's bytes go into a file.
  Outcome<void> prepare_write(OpenFile& file, bool drop_privileges);
  // These two are writing as well, of which the guest does not say what to drop.
  Outcome<void> allocate(OpenFile& file, std::uint64_t offset, std::uint64_t length,
                         std::uint32_t mode, const Caller& caller);
  static Outcome<std::uint64_t> seek(const OpenFile& file, std::uint64_t offset,
                                     std::uint32_t whence);
  Outcome<std::uint32_t> copy_range(const OpenFile& from, std::uint64_t from_offset, OpenFile& to,
                                    std::uint64_t to_offset, std::uint64_t length,
                                    const Caller& caller);
  // What close(2) would say.
  static Outcome<void> flush(const OpenFile& file);
  // Of all shares that are written to.
  Outcome<void> sync_file_systems();

  [[nodiscard]] FileLocks& locks() { return locks_; }
  [[nodiscard]] const FileLocks& locks() const { return locks_; }

  // --- extended attributes, by their names in the guest ---
  Outcome<std::vector<std::byte>> get_xattr(std::uint64_t node, std::string_view name,
                                            std::size_t room);
  // `flags`: setxattr(2)'s; `extra`: FUSE_SETXATTR_*.
  Outcome<void> set_xattr(std::uint64_t node, std::string_view name,
                          std::span<const std::byte> value, std::uint32_t flags,
                          std::uint32_t extra);
  Outcome<void> remove_xattr(std::uint64_t node, std::string_view name);
  // Names, each ended by a NUL.
  Outcome<std::vector<std::byte>> list_xattrs(std::uint64_t node);

  [[nodiscard]] const NodeTable& nodes() const { return nodes_; }
  [[nodiscard]] std::size_t open_handles() const { return handles_.size(); }

 private:
  // A file that exists: its status, and a path for calls that take no descriptor. Found by its name
  // in a directory, or open, which is what everything needs that changes it.
  struct Place {
    struct statx status{};
    std::string path;
    bool follow = false;  // it is open: the path is a link that leads to it
    PathFd descriptor;    // of the directory or, if it is open, of itself
  };

  Outcome<Node*> node(std::uint64_t id);
  Outcome<Node*> writable_node(std::uint64_t id);
  Outcome<Place> place(Node& node);
  Outcome<Place> open_place(Node& node);
  static Outcome<Place> open_place(PathFd descriptor);
  // `directory` open, and a name that may be one.
  struct Slot {
    Node* directory = nullptr;
    PathFd descriptor;
    std::string name;
  };
  Outcome<Slot> slot(std::uint64_t directory, std::string_view name, bool to_write);

  GuestOwner owner_of(Share& share, const Place& place);
  fuse_attr show(Node& node, const Place& place);
  fuse_attr show_as(Node& node, const struct statx& status, const GuestOwner& owner);
  // Changes how a file is shown, in the mode and the attribute that it has on the host.
  Outcome<void> set_owner(Share& share, const Place& place, const GuestOwner& wanted);
  // What is made in a directory, as it is to be.
  struct NewInode {
    GuestOwner owner;
    std::vector<std::byte> access_acl;   // empty: none
    std::vector<std::byte> default_acl;  // likewise
  };
  // `descriptor`: of the directory.
  NewInode new_inode_in(const Node& directory, int descriptor, std::uint32_t mode,
                        std::uint32_t device, const Caller& caller);
  // Makes the file at an open place what it is to be.
  Outcome<void> initialize(Share& share, const Place& place, const NewInode& made);
  // EACCES for what is mounted there and is not for guests.
  static Outcome<void> admit(const Slot& slot, const struct statx& status);
  // Counts a lookup of what is at `slot`.
  Outcome<Entry> enter(const Slot& slot);
  // Likewise of what was just made there: by its name, at an open place, or as an open file.
  Outcome<Entry> enter_new(const Slot& slot, const NewInode& made);
  Outcome<Entry> enter_new(const Slot& slot, const NewInode& made, const Place& place);
  Outcome<Entry> enter_made(const Slot& slot, const NewInode& made, const Fd& file);
  Outcome<Handle> add_handle(Node& node, OpenFile file);
  Outcome<void> set_acl(Node& node, std::string_view name, std::span<const std::byte> value,
                        std::uint32_t flags);
  Outcome<void> chmod_acl(Share& share, const Place& place, std::uint32_t mode);
  Outcome<void> drop_privileges(Share& share, const Place& place, bool modes);
  static bool has_capability(const Share& share, const Place& place);
  Outcome<void> truncate(Node& node, const Place& place, const fuse_setattr_in& wanted);

  OwnerRule rule_;
  ShareLimits limits_;
  NodeTable nodes_;
  FileLocks locks_;
  std::vector<std::shared_ptr<Share>> shares_;
  std::uint32_t next_share_ = 1;
  std::uint64_t next_handle_ = 1;
  std::unordered_map<std::uint64_t, std::shared_ptr<OpenFile>> handles_;
  // Of the directory that was listed last: what getdents64(2) gave beyond what the guest had room
  // for, and the offset that it begins at.
  struct Ahead {
    std::weak_ptr<OpenFile> directory;
    std::vector<std::byte> bytes;
    std::size_t taken = 0;
    std::uint64_t offset = 0;
  };
  Ahead ahead_;
  std::vector<std::uint64_t> devices_;  // of the host, by the order in which they were seen
};

}  // namespace msb::virtio
