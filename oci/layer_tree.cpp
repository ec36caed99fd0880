// SPDX-License-Identifier: Apache-2.0
#include "oci/layer_tree.hpp"

#include <sys/random.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "oci/erofs_format.hpp"
#include "oci/printable.hpp"

namespace msb::oci {
namespace {

// Names, link targets and attributes together; what 2 million entries may take of the memory
// budget.
constexpr std::size_t kTextCapacity = std::size_t{256} << 20;  // bytes
constexpr std::size_t kFirstTableSize = 1024;
constexpr std::uint16_t kImpliedPermissions = 0755;

// layer.md, "Whiteouts".
constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kMetaPrefix = ".wh..wh.";
constexpr std::string_view kOpaqueMarker = ".wh..wh..opq";

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> components;
  while (!path.empty()) {
    const auto slash = path.find('/');
    const std::string_view component = path.substr(0, slash);
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
    if (!component.empty() && component != ".") {
      components.push_back(component);
    }
  }
  return components;
}

// The components of a name in the archive.
Result<std::vector<std::string_view>> split_strictly(std::string_view path) {
  if (path.empty()) {
    return fail("it has an empty name");
  }
  if (path.size() > kMaxPathLength) {
    return fail("its name is longer than {} bytes", kMaxPathLength);
  }
  if (path.find('\0') != std::string_view::npos) {
    return fail("its name contains a zero byte");
  }
  auto components = split(path);
  for (const std::string_view component : components) {
    if (component == "..") {
      return fail("its name contains '..'");
    }
    if (component.size() > kMaxNameLength) {
      return fail("'{}' is longer than {} bytes", printable(component), kMaxNameLength);
    }
  }
  return components;
}

bool is_leftover(std::span<const std::string_view> components) {
  return std::ranges::any_of(components, [](std::string_view component) {
    return component.starts_with(kMetaPrefix) && component != kOpaqueMarker;
  });
}

XattrOwner xattr_owner(FileType type) {
  switch (type) {
    case FileType::kRegular:
      return XattrOwner::kRegular;
    case FileType::kDirectory:
      return XattrOwner::kDirectory;
    case FileType::kSymlink:
      return XattrOwner::kSymlink;
    default:
      return XattrOwner::kOther;
  }
}

std::uint64_t random_seed() {
  std::uint64_t seed = 0;
  return ::getrandom(&seed, sizeof seed, 0) == sizeof seed ? seed : 0;
}

}  // namespace

LayerTree::LayerTree(std::uint32_t max_entries)
    : max_entries_(max_entries),
      hash_seed_(random_seed()),
      table_(kFirstTableSize, kNoIndex),
      texts_(kTextCapacity) {
  TreeInode root;
  root.metadata.permissions = kImpliedPermissions;
  root.content = DirectoryContent{.implied = true};
  inodes_.push_back(root);
}

Result<std::optional<InodeIndex>> LayerTree::add(const TreeEntry& entry) {
  const auto context = [&](const Error& error) {
    return std::unexpected(error.within(fmt::format("entry '{}'", printable(entry.path))));
  };
  const auto placed = place(entry.path);
  if (!placed) {
    return context(placed.error());
  }
  if (placed->is_marker) {
    return std::nullopt;
  }
  const bool is_directory = entry.type == FileType::kDirectory;
  if (placed->is_root && !is_directory) {
    return fail("entry '{}' would replace the root directory", printable(entry.path));
  }
  auto fresh = new_inode(entry);
  if (!fresh) {
    return context(fresh.error());
  }
  const InodeIndex existing = placed->is_root ? kRoot : names_[placed->name].inode;
  if (is_directory && existing != kNoIndex && inodes_[existing].is_directory()) {
    TreeInode& merged = inodes_[existing];
    merged.metadata = inodes_[*fresh].metadata;
    merged.xattrs = inodes_[*fresh].xattrs;
    directory(existing).implied = false;
    inodes_.pop_back();
    return std::nullopt;
  }
  assign(placed->name, *fresh);
  return entry.type == FileType::kRegular ? std::optional(*fresh) : std::nullopt;
}

Result<void> LayerTree::add_hard_link(std::string_view path, std::string_view target) {
  const auto context = [&](const Error& error) {
    return std::unexpected(
        error.within(fmt::format("hard link '{}' to '{}'", printable(path), printable(target))));
  };
  // A marker's name alone says what it means: AUFS made whiteouts hard links to a file that is
  // never there.
  const auto placed = place(path);
  if (!placed) {
    return context(placed.error());
  }
  if (placed->is_marker) {
    return {};
  }
  if (placed->is_root) {
    return fail("hard link '{}' would replace the root directory", printable(path));
  }
  const auto inode = find_link_target(target);
  if (!inode) {
    return context(inode.error());
  }
  assign(placed->name, *inode);
  return {};
}

// Resolves the name of an entry, creates the directories on its way, and deals with whiteouts.
Result<LayerTree::Place> LayerTree::place(std::string_view path) {
  const auto components = split_strictly(path);
  if (!components) {
    return std::unexpected(components.error());
  }
  if (components->empty()) {
    return Place{.is_root = true};
  }
  if (is_leftover(*components)) {
    return Place{.is_marker = true};
  }
  const std::string_view last = components->back();
  const auto parent = make_directories(std::span(*components).first(components->size() - 1));
  if (!parent) {
    return std::unexpected(parent.error());
  }
  if (last.starts_with(kWhiteoutPrefix)) {
    return place_marker(*parent, last);
  }
  const auto name = find_or_create(*parent, last);
  if (!name) {
    return std::unexpected(name.error());
  }
  return Place{.name = *name};
}

Result<LayerTree::Place> LayerTree::place_marker(InodeIndex parent, std::string_view marker) {
  if (marker == kOpaqueMarker) {
    directory(parent).opaque = true;
    return Place{.is_marker = true};
  }
  const std::string_view hidden = marker.substr(kWhiteoutPrefix.size());
  if (hidden.empty() || hidden == "." || hidden == "..") {
    return fail("it is a whiteout of '{}', which is no name", hidden);
  }
  const auto name = find_or_create(parent, hidden);
  if (!name) {
    return std::unexpected(name.error());
  }
  names_[*name].whiteout = true;
  return Place{.is_marker = true};
}

void LayerTree::assign(NameIndex name, InodeIndex inode) {
  TreeName& entry = names_[name];
  if (entry.inode != kNoIndex && inodes_[inode].is_directory()) {
    // What this directory replaces had already hidden what lower layers have under its name.
    entry.whiteout = true;
  }
  entry.inode = inode;
}

// Follows `components` from the root, through symbolic links, as far as they exist. The steps from
// the root on that remain have no ".." and no links; once one does not exist, the rest does not
// either.
Result<std::vector<LayerTree::Step>> LayerTree::walk(std::span<const std::string_view> components) {
  std::vector<Step> steps;
  Components pending(components.rbegin(), components.rend());
  int links = 0;
  while (!pending.empty()) {
    const std::string_view component = pending.back();
    pending.pop_back();
    if (component == "..") {
      if (!steps.empty()) {
        steps.pop_back();
      }
      continue;
    }
    if (component.size() > kMaxNameLength || steps.size() == kMaxDirectoryDepth) {
      return fail("its directory is nested too deep or has too long a name");
    }
    const InodeIndex current = steps.empty() ? kRoot : steps.back().inode;
    const NameIndex name = current == kNoIndex ? kNoIndex : find(current, component);
    const InodeIndex next = name == kNoIndex ? kNoIndex : names_[name].inode;
    if (next == kNoIndex || inodes_[next].is_directory()) {
      steps.push_back(Step{component, next});
      continue;
    }
    const auto* link = std::get_if<SymlinkContent>(&inodes_[next].content);
    if (link == nullptr) {
      return fail("'{}' on its way is not a directory", printable(component));
    }
    if (++links > kMaxFollowedLinks) {
      return fail("its directory leads through more than {} symbolic links", kMaxFollowedLinks);
    }
    const std::string_view target = texts_.at(link->target);
    if (target.starts_with('/')) {
      steps.clear();
    }
    const Components added = split(target);
    pending.insert(pending.end(), added.rbegin(), added.rend());
  }
  return steps;
}

Result<InodeIndex> LayerTree::make_directories(std::span<const std::string_view> components) {
  const auto steps = walk(components);
  if (!steps) {
    return std::unexpected(steps.error());
  }
  InodeIndex current = kRoot;
  for (const Step& step : *steps) {
    if (step.inode != kNoIndex) {
      current = step.inode;
      continue;
    }
    const auto name = find_or_create(current, step.name);
    if (!name) {
      return std::unexpected(name.error());
    }
    TreeInode implied;
    implied.metadata.permissions = kImpliedPermissions;
    implied.content = DirectoryContent{.implied = true};
    const auto inode = push_inode(implied);
    if (!inode) {
      return std::unexpected(inode.error());
    }
    names_[*name].inode = *inode;
    current = *inode;
  }
  return current;
}

Result<InodeIndex> LayerTree::find_link_target(std::string_view target) {
  const auto components = split_strictly(target);
  if (!components) {
    return std::unexpected(components.error().within("its target"));
  }
  if (components->empty()) {
    return fail("its target is a directory");
  }
  const auto steps = walk(std::span(*components).first(components->size() - 1));
  if (!steps) {
    return std::unexpected(steps.error().within("its target"));
  }
  const InodeIndex parent = steps->empty() ? kRoot : steps->back().inode;
  const NameIndex name = parent == kNoIndex ? kNoIndex : find(parent, components->back());
  const InodeIndex inode = name == kNoIndex ? kNoIndex : names_[name].inode;
  if (inode == kNoIndex) {
    return fail("its target does not come before it in this layer");
  }
  if (inodes_[inode].is_directory()) {
    return fail("its target is a directory");
  }
  return inode;
}

Result<InodeIndex> LayerTree::new_inode(const TreeEntry& entry) {
  TreeInode inode;
  inode.metadata = entry.metadata;
  if (entry.type != FileType::kSymlink) {
    inode.metadata.permissions = permissions_with(entry.metadata.permissions, entry.xattrs);
  }
  const auto xattrs = encode_xattrs(entry.xattrs, xattr_owner(entry.type));
  if (!xattrs) {
    return std::unexpected(xattrs.error());
  }
  const auto stored_xattrs = store(*xattrs);
  if (!stored_xattrs) {
    return std::unexpected(stored_xattrs.error());
  }
  inode.xattrs = *stored_xattrs;

  switch (entry.type) {
    case FileType::kRegular:
      inode.content = RegularContent{};
      break;
    case FileType::kDirectory:
      inode.content = DirectoryContent{};
      break;
    case FileType::kFifo:
      inode.content = FifoContent{};
      break;
    case FileType::kCharacterDevice:
    case FileType::kBlockDevice:
      if (entry.device_major > erofs::kMaxDeviceMajor ||
          entry.device_minor > erofs::kMaxDeviceMinor) {
        return fail("Linux has no device number {}:{}", entry.device_major, entry.device_minor);
      }
      inode.content = DeviceContent{entry.type, entry.device_major, entry.device_minor};
      break;
    case FileType::kSymlink: {
      if (entry.link_target.empty() || entry.link_target.size() > kMaxTargetLength) {
        return fail("the target of the symbolic link has {} bytes instead of 1 to {}",
                    entry.link_target.size(), kMaxTargetLength);
      }
      const auto target = store(entry.link_target);
      if (!target) {
        return std::unexpected(target.error());
      }
      inode.content = SymlinkContent{*target};
      break;
    }
  }
  return push_inode(inode);
}

Result<InodeIndex> LayerTree::push_inode(const TreeInode& inode) {
  if (inodes_.size() > max_entries_) {
    return fail("the layer has more than {} entries", max_entries_);
  }
  inodes_.push_back(inode);
  return static_cast<InodeIndex>(inodes_.size() - 1);
}

Result<Arena::Ref> LayerTree::store(std::string_view text) {
  const auto ref = texts_.store(text);
  if (!ref) {
    return fail("the names, link targets and attributes of the layer are longer than {} bytes",
                kTextCapacity);
  }
  return *ref;
}

NameIndex LayerTree::find(InodeIndex parent, std::string_view name) const {
  return table_[slot_of(parent, name)];
}

Result<NameIndex> LayerTree::find_or_create(InodeIndex parent, std::string_view name) {
  std::size_t slot = slot_of(parent, name);
  if (table_[slot] != kNoIndex) {
    return table_[slot];
  }
  if (names_.size() == max_entries_) {
    return fail("the layer has more than {} entries", max_entries_);
  }
  if (2 * (names_.size() + 1) > table_.size()) {
    grow_table();
    slot = slot_of(parent, name);
  }
  const auto text = store(name);
  if (!text) {
    return std::unexpected(text.error());
  }
  const auto index = static_cast<NameIndex>(names_.size());
  names_.push_back(TreeName{.text = *text,
                            .directory = parent,
                            .previous = std::exchange(directory(parent).last_name, index)});
  table_[slot] = index;
  return index;
}

// The slot that holds the name, or the free one where it belongs.
std::size_t LayerTree::slot_of(InodeIndex parent, std::string_view name) const {
  const std::size_t mask = table_.size() - 1;
  std::size_t slot = XXH3_64bits_withSeed(name.data(), name.size(), hash_seed_ + parent) & mask;
  while (table_[slot] != kNoIndex) {
    const TreeName& candidate = names_[table_[slot]];
    if (candidate.directory == parent && texts_.at(candidate.text) == name) {
      break;
    }
    slot = (slot + 1) & mask;
  }
  return slot;
}

void LayerTree::grow_table() {
  table_.assign(2 * table_.size(), kNoIndex);
  for (NameIndex index = 0; index < names_.size(); ++index) {
    table_[slot_of(names_[index].directory, texts_.at(names_[index].text))] = index;
  }
}

}  // namespace msb::oci
