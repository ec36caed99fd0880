// SPDX-License-Identifier: Apache-2.0
#include "oci/implied_directories.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <ranges>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "oci/digest.hpp"
#include "oci/erofs_tree.hpp"
#include "oci/erofs_writer.hpp"
#include "oci/layer_tree.hpp"
#include "oci/xattrs.hpp"

namespace msb::oci {
namespace {

// Blocks of the layers' directories that are searched: a second's worth. Only an image that is made
// for it needs more.
constexpr std::uint64_t kMaxBlocks = 200'000;
constexpr std::uint32_t kMaxDescribed = 200'000;

// A directory of one layer.
struct Part {
  const ErofsTree* tree = nullptr;
  ErofsTree::Node node;
};

// A directory as overlayfs merges it: its parts, the topmost first.
struct Merged {
  std::string path;  // empty for the root
  std::vector<Part> parts;

  // The part that describes it, or nothing when no layer lists it.
  [[nodiscard]] const Part* described() const {
    const auto found =
        std::ranges::find_if(parts, [](const Part& part) { return !part.node.is_implied(); });
    return found == parts.end() ? nullptr : &*found;
  }
};

class Search {
 public:
  explicit Search(std::vector<ErofsTree> trees) : trees_(std::move(trees)) {}

  // The tree of the layer to be made; only its root when none is needed.
  Result<const LayerTree*> run();
  [[nodiscard]] bool found_any() const { return !done_.empty(); }

 private:
  [[nodiscard]] Result<Merged> root() const;
  // Before a directory is searched: fails when that would be too much in all.
  Result<void> charge(const ErofsTree::Node& directory);
  Result<void> visit(const Merged& directory);
  Result<Merged> child(const Merged& directory, std::string_view name);
  Result<void> describe_all(const Merged& directory);
  Result<void> describe(const Merged& directory);

  std::vector<ErofsTree> trees_;  // lowest first
  std::vector<Merged> pending_;
  std::uint64_t blocks_ = 0;
  LayerTree tree_{kMaxDescribed};
  std::set<std::string> done_;  // paths that the tree describes
};

Result<const LayerTree*> Search::run() {
  auto top = root();
  if (!top) {
    return std::unexpected(top.error());
  }
  for (pending_.push_back(std::move(*top)); !pending_.empty();) {
    const Merged directory = std::move(pending_.back());
    pending_.pop_back();
    if (auto visited = visit(directory); !visited) {
      return std::unexpected(visited.error());
    }
  }
  return &tree_;
}

Result<Merged> Search::root() const {
  Merged result;
  for (const ErofsTree& tree : trees_ | std::views::reverse) {
    auto node = tree.root();
    if (!node) {
      return std::unexpected(node.error());
    }
    result.parts.push_back({&tree, *node});
  }
  return result;
}

Result<void> Search::charge(const ErofsTree::Node& directory) {
  blocks_ += 1 + directory.inode.i_size / erofs::kBlockSize;
  if (blocks_ > kMaxBlocks) {
    return fail("the image's layers have too many directories that they do not list");
  }
  return {};
}

Result<void> Search::visit(const Merged& directory) {
  if (directory.parts.front().node.is_implied() && directory.described() != nullptr) {
    if (auto described = describe_all(directory); !described) {
      return described;
    }
  }
  std::set<std::string> names;
  // The lowest part has nothing below it that could say more.
  for (const Part& part : std::span(directory.parts).first(directory.parts.size() - 1)) {
    if (part.node.has_implied()) {
      if (auto charged = charge(part.node); !charged) {
        return charged;
      }
      auto more = part.tree->names_with_implied(part.node);
      if (!more) {
        return std::unexpected(more.error());
      }
      names.insert(std::make_move_iterator(more->begin()), std::make_move_iterator(more->end()));
    }
  }
  for (const std::string& name : names) {
    auto next = child(directory, name);
    if (!next) {
      return std::unexpected(next.error());
    }
    // What one layer has alone is as that layer says. No path of an entry is longer, but one
    // through symbolic links, or of a damaged image, may be.
    if (next->parts.size() > 1 && next->path.size() <= kMaxPathLength) {
      pending_.push_back(std::move(*next));
    }
  }
  return {};
}

// The directory `name` as it is merged; without parts where the topmost layer that has the name
// has no directory.
Result<Merged> Search::child(const Merged& directory, std::string_view name) {
  Merged result{.path = directory.path.empty() ? std::string(name)
                                               : fmt::format("{}/{}", directory.path, name),
                .parts = {}};
  for (const Part& part : directory.parts) {
    if (auto charged = charge(part.node); !charged) {
      return std::unexpected(charged.error());
    }
    const auto node = part.tree->find(part.node, name);
    if (!node) {
      return std::unexpected(node.error());
    }
    if (!*node) {
      continue;
    }
    if (!(*node)->is_directory()) {
      break;  // a whiteout, or what hides the directories below
    }
    result.parts.push_back({part.tree, **node});
    const auto xattrs = part.tree->xattrs(**node);
    if (!xattrs) {
      return std::unexpected(xattrs.error());
    }
    if (contains_opaque_xattr(*xattrs)) {
      break;
    }
  }
  return result;
}

// The layer lists the directories above, too, or it would have to make them up itself.
Result<void> Search::describe_all(const Merged& directory) {
  auto above = root();
  for (std::string_view rest = directory.path; above;) {
    if (auto described = describe(*above); !described) {
      return described;
    }
    if (rest.empty()) {
      return {};
    }
    const auto slash = rest.find('/');
    const std::string_view name = rest.substr(0, slash);
    rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
    above = child(*above, name);
  }
  return std::unexpected(above.error());
}

Result<void> Search::describe(const Merged& directory) {
  const Part* part = directory.described();
  if (part == nullptr || !done_.insert(directory.path).second) {
    return {};
  }
  const auto entries = part->tree->xattrs(part->node);
  if (!entries) {
    return std::unexpected(entries.error());
  }
  const auto xattrs = decode_xattrs(*entries);
  std::vector<Xattr> views;
  views.reserve(xattrs.size());
  for (const auto& [name, value] : xattrs) {
    views.push_back({name, value});
  }
  const erofs::Inode& inode = part->node.inode;
  const TreeEntry entry{
      .path = directory.path.empty() ? std::string_view(".") : std::string_view(directory.path),
      .type = FileType::kDirectory,
      .metadata = {.permissions = static_cast<std::uint16_t>(inode.i_mode & 07777U),
                   .uid = inode.i_uid,
                   .gid = inode.i_gid,
                   .mtime_seconds = static_cast<std::int64_t>(inode.i_mtime),
                   .mtime_nanoseconds = inode.i_mtime_nsec},
      .xattrs = views,
      .link_target = {}};
  if (auto added = tree_.add(entry); !added) {
    return std::unexpected(added.error());
  }
  return {};
}

Result<Fd> write_layer(const LayerTree& tree) {
  const Fd written(::memfd_create("directories.erofs", MFD_CLOEXEC));
  if (!written) {
    return fail_errno(errno, "cannot create a file in memory");
  }
  ErofsWriter writer(written.get());
  if (const auto image = writer.finish(tree, Digest::of({})); !image) {
    return std::unexpected(image.error());
  }
  Fd read_only(
      ::open(fmt::format("/proc/self/fd/{}", written.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!read_only) {
    return fail_errno(errno, "cannot open a file in memory for reading");
  }
  return read_only;
}

}  // namespace

Result<std::optional<Fd>> make_directory_layer(std::span<const Fd> layers) {
  if (layers.size() < 2) {
    return std::nullopt;
  }
  std::vector<ErofsTree> trees;
  trees.reserve(layers.size());
  for (const Fd& layer : layers) {
    const auto tree = ErofsTree::open(layer.get());
    if (!tree) {
      return std::unexpected(tree.error());
    }
    trees.push_back(*tree);
  }
  Search search(std::move(trees));
  const auto tree = search.run();
  if (!tree) {
    return std::unexpected(tree.error());
  }
  if (!search.found_any()) {
    return std::nullopt;
  }
  auto written = write_layer(**tree);
  if (!written) {
    return std::unexpected(written.error().within("the layer of implied directories"));
  }
  return std::move(*written);
}

}  // namespace msb::oci
