// SPDX-License-Identifier: Apache-2.0
#include "oci/erofs_tree.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "oci/erofs_reader.hpp"
#include "oci/xattrs.hpp"

namespace msb::oci {
namespace {

std::unexpected<Error> damaged() {
  return fail("a layer's image is damaged: one of its directories makes no sense");
}

std::uint64_t xattr_entries_size(const erofs::Inode& inode) {
  return inode.i_xattr_icount <= 1
             ? 0
             : std::uint64_t{inode.i_xattr_icount - 1U} * erofs::kXattrAlignment;
}

template <typename T>
T value_at(std::string_view bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

}  // namespace

bool ErofsTree::Node::is_directory() const {
  return S_ISDIR(inode.i_mode);
}

ErofsTree::ErofsTree(int fd, const erofs::Superblock& super)
    : fd_(fd),
      meta_(std::uint64_t{super.meta_blkaddr} * erofs::kBlockSize),
      root_nid_(super.root_nid) {}

Result<ErofsTree> ErofsTree::open(int fd) {
  const auto super = read_superblock(fd);
  if (!super) {
    return std::unexpected(super.error());
  }
  return ErofsTree(fd, *super);
}

Result<ErofsTree::Node> ErofsTree::root() const {
  return node(root_nid_);
}

Result<ErofsTree::Node> ErofsTree::node(std::uint64_t nid) const {
  Node result;
  if (nid > (std::uint64_t{1} << 48U)) {
    return damaged();
  }
  result.offset = meta_ + nid * erofs::kSlotSize;
  if (!read_image_at(fd_, std::as_writable_bytes(std::span(&result.inode, 1)), result.offset)) {
    return damaged();
  }
  return result;
}

Result<std::optional<ErofsTree::Node>> ErofsTree::find(const Node& directory,
                                                       std::string_view name) const {
  std::optional<std::uint64_t> nid;
  const auto searched = for_each(directory, [&](const Entry& entry) -> Result<bool> {
    if (entry.name == name) {
      nid = entry.nid;
    }
    return entry.name < name;  // they ascend
  });
  if (!searched) {
    return std::unexpected(searched.error());
  }
  if (!nid) {
    return std::nullopt;
  }
  return node(*nid);
}

Result<std::vector<std::string>> ErofsTree::names_with_implied(const Node& directory) const {
  std::vector<std::string> names;
  const auto searched = for_each(directory, [&](const Entry& entry) -> Result<bool> {
    if (entry.type != erofs::FileTypeCode::kDirectory || entry.name == "." || entry.name == "..") {
      return true;
    }
    const auto child = node(entry.nid);
    if (!child) {
      return std::unexpected(child.error());
    }
    if (child->has_implied()) {
      names.emplace_back(entry.name);
    }
    return true;
  });
  if (!searched) {
    return std::unexpected(searched.error());
  }
  return names;
}

Result<std::string> ErofsTree::xattrs(const Node& node) const {
  std::string entries(xattr_entries_size(node.inode), '\0');
  if (!read_image_at(fd_, std::as_writable_bytes(std::span(entries)),
                     node.offset + sizeof(erofs::Inode) + sizeof(erofs::XattrHeader))) {
    return damaged();
  }
  return entries;
}

Result<void> ErofsTree::for_each(const Node& directory, const Visitor& visit) const {
  const std::uint64_t size = directory.inode.i_size;
  const std::uint64_t whole = size / erofs::kBlockSize;
  const bool has_tail = directory.inode.i_format == erofs::inode_format(erofs::DataLayout::kInline);
  const std::uint64_t tail_at = directory.offset + sizeof(erofs::Inode) +
                                xattr_body_size(xattr_entries_size(directory.inode));
  for (std::uint64_t done = 0; done < size; done += erofs::kBlockSize) {
    std::string block(std::min<std::uint64_t>(size - done, erofs::kBlockSize), '\0');
    const std::uint64_t index = done / erofs::kBlockSize;
    const std::uint64_t at =
        has_tail && index == whole ? tail_at : (directory.inode.i_u + index) * erofs::kBlockSize;
    if (!read_image_at(fd_, std::as_writable_bytes(std::span(block)), at)) {
      return damaged();
    }
    const auto more = visit_block(block, visit);
    if (!more) {
      return std::unexpected(more.error());
    }
    if (!*more) {
      return {};
    }
  }
  return {};
}

// Whether to go on.
Result<bool> ErofsTree::visit_block(std::string_view block, const Visitor& visit) {
  if (block.size() < sizeof(erofs::Dirent)) {
    return damaged();
  }
  const std::size_t names = value_at<erofs::Dirent>(block, 0).nameoff;
  if (names > block.size() || names < sizeof(erofs::Dirent)) {
    return damaged();
  }
  const std::size_t count = names / sizeof(erofs::Dirent);
  for (std::size_t i = 0; i < count; ++i) {
    const auto entry = value_at<erofs::Dirent>(block, i * sizeof(erofs::Dirent));
    std::size_t end = block.size();
    if (i + 1 < count) {
      end = value_at<erofs::Dirent>(block, (i + 1) * sizeof(erofs::Dirent)).nameoff;
    }
    const std::size_t start = entry.nameoff;
    if (start > end || end > block.size()) {
      return damaged();
    }
    std::string_view name = block.substr(start, end - start);
    name = name.substr(0, name.find('\0'));  // the last name of a block may be followed by zeros
    const auto more = visit({.name = name,
                             .nid = entry.nid,
                             .type = static_cast<erofs::FileTypeCode>(entry.file_type)});
    if (!more || !*more) {
      return more;
    }
  }
  return true;
}

}  // namespace msb::oci
