// SPDX-License-Identifier: Apache-2.0
#include "oci/erofs_metadata.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include "oci/erofs_format.hpp"
#include "oci/xattrs.hpp"

namespace msb::oci {
namespace {

// Leaves slot 0 free: programs take inode number 0 for a deleted entry.
constexpr std::uint64_t kFirstInodeOffset = erofs::kSlotSize;

std::uint64_t round_up(std::uint64_t value, std::uint64_t boundary) {
  return (value + boundary - 1) / boundary * boundary;
}

// A directory as it will be on disk.
struct Directory {
  InodeIndex inode = kNoIndex;
  InodeIndex parent = kNoIndex;
  std::size_t first_child = 0;  // in MetadataWriter::children_
  std::size_t children = 0;
  std::size_t dot = 0;      // where "." is among the entries
  std::size_t dot_dot = 0;  // where ".." is
  std::uint32_t subdirectories = 0;
  bool opaque = false;
  bool implied = false;
  bool implied_below = false;
  std::uint32_t full_blocks = 0;  // all but what follows the inode
  std::uint32_t first_block = erofs::kNoBlock;
  std::uint64_t size = 0;       // bytes
  std::size_t last_entry = 0;   // the first entry of the last block
  std::uint32_t last_size = 0;  // bytes used of the last block
};

// An inode as it will be on disk.
struct Placement {
  std::uint32_t slot = 0;  // the nid
  std::uint32_t links = 0;
  std::uint32_t directory = kNoIndex;     // index of a directory's Directory
  std::uint32_t block = erofs::kNoBlock;  // of a symbolic link's target that does not fit behind it
};

struct DirectoryEntry {
  std::string_view name;
  InodeIndex inode = kNoIndex;
  erofs::FileTypeCode type = erofs::FileTypeCode::kDirectory;
};

std::uint16_t format_bits(erofs::FileTypeCode type) {
  switch (type) {
    case erofs::FileTypeCode::kRegular:
      return S_IFREG;
    case erofs::FileTypeCode::kDirectory:
      return S_IFDIR;
    case erofs::FileTypeCode::kCharacterDevice:
      return S_IFCHR;
    case erofs::FileTypeCode::kBlockDevice:
      return S_IFBLK;
    case erofs::FileTypeCode::kFifo:
      return S_IFIFO;
    case erofs::FileTypeCode::kSymlink:
      return S_IFLNK;
  }
  return S_IFREG;
}

class MetadataWriter {
 public:
  MetadataWriter(const LayerTree& tree, const Arena& tails, BlockStream& stream)
      : tree_(tree), tails_(tails), stream_(stream), placements_(tree.inodes().size() + 1) {}

  Result<MetadataSummary> run() {
    visit_directories();
    place_blocks();
    place_inodes();
    if (end_block_ > std::numeric_limits<std::uint32_t>::max()) {
      return fail("the layer is too large for one file system");
    }
    summary_.meta_block = static_cast<std::uint32_t>(meta_block_);
    summary_.end_block = static_cast<std::uint32_t>(end_block_);
    if (auto written = write_blocks(); !written) {
      return std::unexpected(written.error());
    }
    if (auto written = write_inodes(); !written) {
      return std::unexpected(written.error());
    }
    return summary_;
  }

 private:
  // The tree has no inode for its whiteouts; all of them are names of this one, as in the kernel's
  // own overlayfs.
  [[nodiscard]] InodeIndex whiteout() const {
    return static_cast<InodeIndex>(tree_.inodes().size());
  }

  // Step 1: what is reachable, in which order, with how many links. Breadth first, so that the
  // inodes of a directory's entries lie together.
  void visit_directories();
  void visit_children(std::size_t index);
  [[nodiscard]] std::vector<NameIndex> sorted_children(const Directory& directory) const;

  // Step 2: which blocks directories and long symbolic links take.
  void place_blocks();
  void measure(Directory& directory) const;

  // Step 3: which slots inodes take.
  void place_inodes();

  // Steps 4 and 5: writing.
  Result<void> write_blocks();
  Result<void> write_directory_blocks(const Directory& directory);
  Result<void> write_inodes();
  Result<void> write_inode(InodeIndex index);

  [[nodiscard]] std::string_view text_of(NameIndex index) const {
    return tree_.text(tree_.name(index).text);
  }
  [[nodiscard]] erofs::FileTypeCode type_of(InodeIndex index) const;
  [[nodiscard]] std::string xattrs_of(InodeIndex index) const;
  [[nodiscard]] std::uint32_t inline_size(InodeIndex index) const;
  [[nodiscard]] bool has_long_target(InodeIndex index) const;

  [[nodiscard]] std::size_t entry_count(const Directory& directory) const {
    return directory.children + 2;
  }
  [[nodiscard]] DirectoryEntry entry(const Directory& directory, std::size_t position) const;
  [[nodiscard]] std::size_t block_end(const Directory& directory, std::size_t first,
                                      std::uint32_t& used) const;
  void encode_block(const Directory& directory, std::size_t first, std::size_t end,
                    std::span<std::byte> block) const;

  const LayerTree& tree_;
  const Arena& tails_;
  BlockStream& stream_;
  MetadataSummary summary_;
  std::vector<Placement> placements_;   // by inode, the whiteout's last
  std::vector<Directory> directories_;  // breadth first
  std::vector<NameIndex> children_;     // of all directories, sorted within each
  std::vector<InodeIndex> order_;       // inodes as they are written
  std::uint64_t meta_block_ = 0;
  std::uint64_t end_block_ = 0;
};

void MetadataWriter::visit_directories() {
  const auto& root = std::get<DirectoryContent>(tree_.inode(LayerTree::kRoot).content);
  directories_.push_back(Directory{.inode = LayerTree::kRoot,
                                   .parent = LayerTree::kRoot,
                                   .opaque = root.opaque,
                                   .implied = root.implied});
  placements_[LayerTree::kRoot].directory = 0;
  order_.push_back(LayerTree::kRoot);
  for (std::size_t i = 0; i < directories_.size(); ++i) {
    visit_children(i);
  }
  // Children come behind their parents.
  for (std::size_t i = directories_.size() - 1; i > 0; --i) {
    const Directory& directory = directories_[i];
    if (directory.implied || directory.implied_below) {
      directories_[placements_[directory.parent].directory].implied_below = true;
    }
  }
  summary_.inodes = order_.size();
  summary_.names = static_cast<std::uint32_t>(children_.size());
}

void MetadataWriter::visit_children(std::size_t index) {
  const std::vector<NameIndex> sorted = sorted_children(directories_[index]);
  directories_[index].first_child = children_.size();
  directories_[index].children = sorted.size();
  const auto position_of = [&](std::string_view name) {
    return static_cast<std::size_t>(
        std::ranges::lower_bound(sorted, name, {},
                                 [&](NameIndex child) { return text_of(child); }) -
        sorted.begin());
  };
  directories_[index].dot = position_of(".");
  directories_[index].dot_dot = position_of("..") + 1;
  children_.insert(children_.end(), sorted.begin(), sorted.end());
  for (const NameIndex child : sorted) {
    const TreeName& name = tree_.name(child);
    const InodeIndex inode = name.inode == kNoIndex ? whiteout() : name.inode;
    if (placements_[inode].links++ == 0) {
      order_.push_back(inode);
    }
    if (inode == whiteout() || !tree_.inode(inode).is_directory()) {
      continue;
    }
    const auto& content = std::get<DirectoryContent>(tree_.inode(inode).content);
    summary_.implied_directories += content.implied ? 1 : 0;
    ++directories_[index].subdirectories;
    placements_[inode].directory = static_cast<std::uint32_t>(directories_.size());
    directories_.push_back(Directory{.inode = inode,
                                     .parent = directories_[index].inode,
                                     .opaque = content.opaque || name.whiteout,
                                     .implied = content.implied});
  }
}

// The names that show. In an opaque directory there is nothing left for a whiteout to hide, and
// overlayfs would show it.
std::vector<NameIndex> MetadataWriter::sorted_children(const Directory& directory) const {
  std::vector<NameIndex> sorted;
  const auto& content = std::get<DirectoryContent>(tree_.inode(directory.inode).content);
  for (NameIndex index = content.last_name; index != kNoIndex; index = tree_.name(index).previous) {
    const TreeName& name = tree_.name(index);
    if (name.inode != kNoIndex || (name.whiteout && !directory.opaque)) {
      sorted.push_back(index);
    }
  }
  // char_traits<char> compares as unsigned char, which is the order that EROFS wants.
  std::ranges::sort(sorted, {}, [&](NameIndex index) { return text_of(index); });
  return sorted;
}

void MetadataWriter::place_blocks() {
  std::uint64_t block = stream_.position() / erofs::kBlockSize;
  for (Directory& directory : directories_) {
    measure(directory);
    if (directory.full_blocks > 0) {
      directory.first_block = static_cast<std::uint32_t>(block);
      block += directory.full_blocks;
    }
  }
  for (const InodeIndex inode : order_) {
    if (has_long_target(inode)) {
      placements_[inode].block = static_cast<std::uint32_t>(block++);
    }
  }
  meta_block_ = block;
}

void MetadataWriter::measure(Directory& directory) const {
  std::size_t first = 0;
  std::uint32_t blocks = 0;
  while (first < entry_count(directory)) {
    directory.last_entry = first;
    first = block_end(directory, first, directory.last_size);
    ++blocks;
  }
  const bool is_inline = fits_inline(xattrs_of(directory.inode).size(), directory.last_size);
  directory.full_blocks = is_inline ? blocks - 1 : blocks;
  directory.size = std::uint64_t{blocks - 1} * erofs::kBlockSize + directory.last_size;
}

void MetadataWriter::place_inodes() {
  std::uint64_t offset = kFirstInodeOffset;
  for (const InodeIndex inode : order_) {
    const std::uint64_t body = sizeof(erofs::Inode) + xattr_body_size(xattrs_of(inode).size());
    const std::uint32_t tail = inline_size(inode);
    // Together in one block if they can be; else at least the inode itself does not cross one.
    const std::uint64_t together =
        body + tail <= erofs::kBlockSize ? body + tail : std::uint64_t{sizeof(erofs::Inode)};
    if (offset % erofs::kBlockSize + together > erofs::kBlockSize) {
      offset = round_up(offset, erofs::kBlockSize);
    }
    placements_[inode].slot = static_cast<std::uint32_t>(offset / erofs::kSlotSize);
    offset = round_up(offset + body + tail, erofs::kSlotSize);
  }
  summary_.root_nid = static_cast<std::uint16_t>(placements_[LayerTree::kRoot].slot);
  end_block_ = meta_block_ + round_up(offset, erofs::kBlockSize) / erofs::kBlockSize;
}

Result<void> MetadataWriter::write_blocks() {
  for (const Directory& directory : directories_) {
    if (auto written = write_directory_blocks(directory); !written) {
      return written;
    }
  }
  for (const InodeIndex inode : order_) {
    if (!has_long_target(inode)) {
      continue;
    }
    const auto target = tree_.text(std::get<SymlinkContent>(tree_.inode(inode).content).target);
    if (auto written = stream_.write(std::as_bytes(std::span(target))); !written) {
      return written;
    }
    if (auto aligned = stream_.align(erofs::kBlockSize); !aligned) {
      return aligned;
    }
  }
  return {};
}

Result<void> MetadataWriter::write_directory_blocks(const Directory& directory) {
  std::size_t first = 0;
  for (std::uint32_t i = 0; i < directory.full_blocks; ++i) {
    std::array<std::byte, erofs::kBlockSize> block{};
    std::uint32_t used = 0;
    const std::size_t end = block_end(directory, first, used);
    encode_block(directory, first, end, block);
    if (auto written = stream_.write(block); !written) {
      return written;
    }
    first = end;
  }
  return {};
}

Result<void> MetadataWriter::write_inodes() {
  const std::uint64_t start = meta_block_ * erofs::kBlockSize;
  for (const InodeIndex inode : order_) {
    const std::uint64_t position =
        start + std::uint64_t{placements_[inode].slot} * erofs::kSlotSize;
    if (auto skipped = stream_.skip(position - stream_.position()); !skipped) {
      return skipped;
    }
    if (auto written = write_inode(inode); !written) {
      return written;
    }
  }
  return stream_.align(erofs::kBlockSize);
}

Result<void> MetadataWriter::write_inode(InodeIndex index) {
  const Placement& placement = placements_[index];
  const std::string xattrs = xattrs_of(index);
  const erofs::FileTypeCode type = type_of(index);
  std::vector<std::byte> tail(inline_size(index));

  erofs::Inode inode{};
  inode.i_format =
      erofs::inode_format(tail.empty() ? erofs::DataLayout::kPlain : erofs::DataLayout::kInline);
  inode.i_mode = format_bits(type);
  inode.i_ino = placement.slot;
  inode.i_nlink = placement.links;
  if (!xattrs.empty()) {
    inode.i_xattr_icount = static_cast<std::uint16_t>(1 + xattrs.size() / erofs::kXattrAlignment);
  }
  if (index != whiteout()) {
    const TreeInode& source = tree_.inode(index);
    inode.i_mode = static_cast<std::uint16_t>(inode.i_mode | source.metadata.permissions);
    inode.i_uid = source.metadata.uid;
    inode.i_gid = source.metadata.gid;
    inode.i_mtime = static_cast<std::uint64_t>(source.metadata.mtime_seconds);
    inode.i_mtime_nsec = source.metadata.mtime_nanoseconds;
    if (const auto* file = std::get_if<RegularContent>(&source.content)) {
      inode.i_size = file->size;
      inode.i_u = file->first_block;
      std::ranges::copy(std::as_bytes(std::span(tails_.at(file->tail))), tail.begin());
    } else if (source.is_directory()) {
      const Directory& directory = directories_[placement.directory];
      inode.i_size = directory.size;
      inode.i_u = directory.first_block;
      inode.i_nlink = 2 + directory.subdirectories;
      inode.msb_marks =
          static_cast<std::uint8_t>((directory.implied ? erofs::kMarkImplied : 0U) |
                                    (directory.implied_below ? erofs::kMarkImpliedBelow : 0U));
      if (!tail.empty()) {
        encode_block(directory, directory.last_entry, entry_count(directory), tail);
      }
    } else if (const auto* link = std::get_if<SymlinkContent>(&source.content)) {
      inode.i_size = link->target.length;
      inode.i_u = placement.block;
      if (!tail.empty()) {
        std::ranges::copy(std::as_bytes(std::span(tree_.text(link->target))), tail.begin());
      }
    } else if (const auto* device = std::get_if<DeviceContent>(&source.content)) {
      inode.i_u = erofs::encode_device(device->major, device->minor);
    }
  }

  if (auto written = stream_.write(std::as_bytes(std::span(&inode, 1))); !written) {
    return written;
  }
  if (!xattrs.empty()) {
    const erofs::XattrHeader header{};
    if (auto written = stream_.write(std::as_bytes(std::span(&header, 1))); !written) {
      return written;
    }
    if (auto written = stream_.write(std::as_bytes(std::span(xattrs))); !written) {
      return written;
    }
  }
  return stream_.write(tail);
}

erofs::FileTypeCode MetadataWriter::type_of(InodeIndex index) const {
  if (index == whiteout()) {
    return erofs::FileTypeCode::kCharacterDevice;
  }
  const auto& content = tree_.inode(index).content;
  if (std::holds_alternative<DirectoryContent>(content)) {
    return erofs::FileTypeCode::kDirectory;
  }
  if (std::holds_alternative<SymlinkContent>(content)) {
    return erofs::FileTypeCode::kSymlink;
  }
  if (std::holds_alternative<FifoContent>(content)) {
    return erofs::FileTypeCode::kFifo;
  }
  if (const auto* device = std::get_if<DeviceContent>(&content)) {
    return device->type == FileType::kBlockDevice ? erofs::FileTypeCode::kBlockDevice
                                                  : erofs::FileTypeCode::kCharacterDevice;
  }
  return erofs::FileTypeCode::kRegular;
}

std::string MetadataWriter::xattrs_of(InodeIndex index) const {
  if (index == whiteout()) {
    return {};
  }
  const TreeInode& inode = tree_.inode(index);
  std::string xattrs(tree_.text(inode.xattrs));
  if (inode.is_directory() && directories_[placements_[index].directory].opaque) {
    xattrs += encode_opaque_xattr();
  }
  return xattrs;
}

// Bytes of data that follow the inode.
std::uint32_t MetadataWriter::inline_size(InodeIndex index) const {
  if (index == whiteout()) {
    return 0;
  }
  const TreeInode& inode = tree_.inode(index);
  if (const auto* file = std::get_if<RegularContent>(&inode.content)) {
    return file->tail.length;
  }
  if (inode.is_directory()) {
    const Directory& directory = directories_[placements_[index].directory];
    return std::uint64_t{directory.full_blocks} * erofs::kBlockSize < directory.size
               ? directory.last_size
               : 0;
  }
  if (const auto* link = std::get_if<SymlinkContent>(&inode.content)) {
    return has_long_target(index) ? 0 : link->target.length;
  }
  return 0;
}

bool MetadataWriter::has_long_target(InodeIndex index) const {
  if (index == whiteout()) {
    return false;
  }
  const TreeInode& inode = tree_.inode(index);
  const auto* link = std::get_if<SymlinkContent>(&inode.content);
  return link != nullptr && !fits_inline(inode.xattrs.length, link->target.length);
}

// The entry at `position` in the sorted sequence of the children with "." and "..".
DirectoryEntry MetadataWriter::entry(const Directory& directory, std::size_t position) const {
  if (position == directory.dot) {
    return {".", directory.inode, erofs::FileTypeCode::kDirectory};
  }
  if (position == directory.dot_dot) {
    return {"..", directory.parent, erofs::FileTypeCode::kDirectory};
  }
  const std::size_t before =
      (position > directory.dot ? 1 : 0) + (position > directory.dot_dot ? 1 : 0);
  const TreeName& name = tree_.name(children_[directory.first_child + position - before]);
  const InodeIndex inode = name.inode == kNoIndex ? whiteout() : name.inode;
  return {tree_.text(name.text), inode, type_of(inode)};
}

// The entry behind the last one that fits into a block which starts with `first`, and the bytes
// used.
std::size_t MetadataWriter::block_end(const Directory& directory, std::size_t first,
                                      std::uint32_t& used) const {
  used = 0;
  std::size_t end = first;
  for (; end < entry_count(directory); ++end) {
    const std::size_t length = sizeof(erofs::Dirent) + entry(directory, end).name.size();
    if (used + length > erofs::kBlockSize) {
      break;
    }
    used += static_cast<std::uint32_t>(length);
  }
  return end;
}

void MetadataWriter::encode_block(const Directory& directory, std::size_t first, std::size_t end,
                                  std::span<std::byte> block) const {
  std::size_t name_offset = (end - first) * sizeof(erofs::Dirent);
  for (std::size_t position = first; position < end; ++position) {
    const DirectoryEntry entry_here = entry(directory, position);
    const erofs::Dirent dirent{.nid = placements_[entry_here.inode].slot,
                               .nameoff = static_cast<std::uint16_t>(name_offset),
                               .file_type = static_cast<std::uint8_t>(entry_here.type),
                               .reserved = 0};
    std::memcpy(block.data() + (position - first) * sizeof dirent, &dirent, sizeof dirent);
    std::ranges::copy(std::as_bytes(std::span(entry_here.name)),
                      block.begin() + static_cast<std::ptrdiff_t>(name_offset));
    name_offset += entry_here.name.size();
  }
}

}  // namespace

bool fits_inline(std::size_t xattrs_size, std::uint64_t tail_size) {
  return sizeof(erofs::Inode) + xattr_body_size(xattrs_size) + tail_size <= erofs::kBlockSize;
}

Result<MetadataSummary> write_metadata(const LayerTree& tree, const Arena& tails,
                                       BlockStream& stream) {
  return MetadataWriter(tree, tails, stream).run();
}

}  // namespace msb::oci
