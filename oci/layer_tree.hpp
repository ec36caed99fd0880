// SPDX-License-Identifier: Apache-2.0
// One layer as a tree in memory, built from the entries of its tar in their order. Pure: nothing
// here touches a file system, so no entry can reach outside of the tree.
//
// Rules, where the specification (OCI image-spec layer.md, POSIX pax) leaves room, follow what
// container engines do:
// - Leading "/" and "./" mean nothing; ".." in an entry's name or a hard link's target is refused.
// - A name given twice: the later entry replaces the earlier one with everything below it; two
// directories merge, the
//   later entry's owner, mode, times and attributes hold.
// - Missing parents become directories of root with mode 0755 and the time 0.
// - Parents that are symbolic links of this layer are followed inside the tree; ".." in them stops
// at the root.
// - A hard link joins an inode of the same layer that came before it.
// - `.wh.NAME` hides NAME of lower layers, `.wh..wh..opq` everything that lower layers have in its
// directory; other
//   `.wh..wh.*` are leftovers of AUFS and ignored. An entry of this layer is never hidden by a
//   whiteout of this layer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.hpp"
#include "oci/arena.hpp"
#include "oci/xattrs.hpp"

namespace msb::oci {

inline constexpr std::size_t kMaxNameLength = 255;     // bytes, one component
inline constexpr std::size_t kMaxPathLength = 4096;    // bytes
inline constexpr std::size_t kMaxTargetLength = 4095;  // bytes, of a symbolic link
inline constexpr std::size_t kMaxDirectoryDepth = 2048;
inline constexpr int kMaxFollowedLinks = 40;  // per path, as in the kernel

enum class FileType : std::uint8_t {
  kRegular,
  kDirectory,
  kSymlink,
  kCharacterDevice,
  kBlockDevice,
  kFifo
};

struct Metadata {
  std::uint16_t permissions = 0;  // 07777
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::int64_t mtime_seconds = 0;  // since 1970, may be negative
  std::uint32_t mtime_nanoseconds = 0;
};

// An entry of the tar that is no hard link.
struct TreeEntry {
  std::string_view path;
  FileType type = FileType::kRegular;
  Metadata metadata;
  std::span<const Xattr> xattrs;
  std::string_view link_target;    // of a symbolic link
  std::uint32_t device_major = 0;  // of a device
  std::uint32_t device_minor = 0;
};

// Index of an inode of the tree.
using InodeIndex = std::uint32_t;
using NameIndex = std::uint32_t;
inline constexpr std::uint32_t kNoIndex = 0xFFFFFFFF;

// Where the writer put the bytes of a regular file.
struct RegularContent {
  std::uint64_t size = 0;                // bytes
  std::uint32_t first_block = kNoIndex;  // of the part in blocks
  Arena::Ref tail;                       // the rest, kept by the writer
};

struct DirectoryContent {
  NameIndex last_name = kNoIndex;  // its names, each linked to the one before
  bool opaque = false;             // by its own `.wh..wh..opq`
  bool implied = false;            // no entry of its own
};

struct SymlinkContent {
  Arena::Ref target;
};

struct DeviceContent {
  FileType type = FileType::kCharacterDevice;
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
};

struct FifoContent {};

struct TreeInode {
  Metadata metadata;
  Arena::Ref xattrs;  // as encode_xattrs() gives them
  std::variant<RegularContent, DirectoryContent, SymlinkContent, DeviceContent, FifoContent>
      content;

  [[nodiscard]] bool is_directory() const {
    return std::holds_alternative<DirectoryContent>(content);
  }
};

// A name in a directory: an inode, a whiteout, or both (then the inode shows, opaque if it is a
// directory).
struct TreeName {
  Arena::Ref text;
  InodeIndex directory = kNoIndex;
  InodeIndex inode = kNoIndex;  // kNoIndex for a mere whiteout
  NameIndex previous = kNoIndex;
  bool whiteout = false;
};

class LayerTree {
 public:
  static constexpr InodeIndex kRoot = 0;

  // Holds up to `max_entries` names.
  explicit LayerTree(std::uint32_t max_entries);

  // Adds an entry. Gives the inode of a regular file, whose content is then set with set_content(),
  // and nothing for everything else. Fails with a sentence that names the entry; then the tree is
  // unusable.
  Result<std::optional<InodeIndex>> add(const TreeEntry& entry);

  // Adds another name for the inode that `target` names, which stays as it is: what the link's own
  // header says of owner, mode and times need not be filled in.
  Result<void> add_hard_link(std::string_view path, std::string_view target);

  void set_content(InodeIndex inode, const RegularContent& content) {
    inodes_[inode].content = content;
  }

  [[nodiscard]] std::span<const TreeInode> inodes() const { return inodes_; }
  [[nodiscard]] const TreeInode& inode(InodeIndex index) const { return inodes_[index]; }
  [[nodiscard]] const TreeName& name(NameIndex index) const { return names_[index]; }
  [[nodiscard]] std::string_view text(Arena::Ref ref) const { return texts_.at(ref); }

 private:
  using Components = std::vector<std::string_view>;

  // A step on a path that is being resolved: a name, and its inode where it exists.
  struct Step {
    std::string_view name;
    InodeIndex inode;
  };

  // Where an entry goes: a name in a directory, or nowhere (the root itself, or a marker that was
  // dealt with).
  struct Place {
    bool is_root = false;
    bool is_marker = false;
    NameIndex name = kNoIndex;
  };

  Result<Place> place(std::string_view path);
  Result<Place> place_marker(InodeIndex parent, std::string_view marker);
  void assign(NameIndex name, InodeIndex inode);

  Result<std::vector<Step>> walk(std::span<const std::string_view> components);
  Result<InodeIndex> make_directories(std::span<const std::string_view> components);
  Result<InodeIndex> find_link_target(std::string_view target);

  Result<InodeIndex> new_inode(const TreeEntry& entry);
  Result<InodeIndex> push_inode(const TreeInode& inode);
  Result<Arena::Ref> store(std::string_view text);

  [[nodiscard]] NameIndex find(InodeIndex parent, std::string_view name) const;
  Result<NameIndex> find_or_create(InodeIndex parent, std::string_view name);
  [[nodiscard]] std::size_t slot_of(InodeIndex parent, std::string_view name) const;
  void grow_table();

  [[nodiscard]] DirectoryContent& directory(InodeIndex index) {
    return std::get<DirectoryContent>(inodes_[index].content);
  }

  std::uint32_t max_entries_;
  std::uint64_t hash_seed_;  // random, so that no image can be built to collide
  std::vector<TreeInode> inodes_;
  std::vector<TreeName> names_;
  std::vector<NameIndex> table_;  // open addressing over names_; its size is a power of two
  Arena texts_;
};

}  // namespace msb::oci
