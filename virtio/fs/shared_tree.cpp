// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/shared_tree.hpp"

#include <sys/stat.h>

#include <utility>

namespace msb::virtio {

SharedTree::SharedTree() : nodes_(2) {
  nodes_[kRoot].directory = true;
  nodes_[kRoot].parent = kRoot;
}

const SharedTree::Node* SharedTree::find(std::uint64_t id) const {
  return id >= kRoot && id < nodes_.size() ? &nodes_[id] : nullptr;
}

std::uint64_t SharedTree::lookup(const Node& directory, std::string_view name) const {
  const auto found = directory.children.find(name);
  return found == directory.children.end() ? 0 : found->second;
}

Result<SharedTree::Node*> SharedTree::add_node(std::string_view path) {
  std::uint64_t directory = kRoot;
  std::string_view rest = path;
  while (true) {
    const std::size_t slash = rest.find('/');
    const std::string_view name = rest.substr(0, slash);
    if (name.empty() || name == "." || name == "..") {
      return fail("shared path \"{}\" is not a plain relative path", path);
    }
    const bool last = slash == std::string_view::npos;
    std::uint64_t id = lookup(nodes_[directory], name);
    if (id != 0 && (last || !nodes_[id].directory)) {
      return fail("shared path \"{}\" is taken", path);
    }
    if (id == 0) {
      id = nodes_.size();
      nodes_[directory].children.emplace(name, id);
      Node& node = nodes_.emplace_back();
      node.parent = directory;
      node.directory = !last;
    }
    if (last) {
      return &nodes_[id];
    }
    directory = id;
    rest.remove_prefix(slash + 1);
  }
}

Result<void> SharedTree::add_file(std::string_view path, Fd file) {
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) {
    return fail_errno(errno, "cannot examine shared file \"{}\"", path);
  }
  if (!S_ISREG(status.st_mode)) {
    return fail("shared file \"{}\" is not a regular file", path);
  }
  auto node = add_node(path);
  if (!node) {
    return std::unexpected(node.error());
  }
  (*node)->file = std::move(file);
  (*node)->size = static_cast<std::uint64_t>(status.st_size);
  return {};
}

Result<void> SharedTree::add_text(std::string_view path, std::string text) {
  auto node = add_node(path);
  if (!node) {
    return std::unexpected(node.error());
  }
  (*node)->size = text.size();
  (*node)->text = std::move(text);
  return {};
}

Result<void> SharedTree::add_share(std::string_view path, std::uint64_t root, bool directory) {
  auto node = add_node(path);
  if (!node) {
    return std::unexpected(node.error());
  }
  (*node)->share = root;
  (*node)->share_directory = directory;
  return {};
}

std::uint64_t SharedTree::remove_share(std::string_view path) {
  std::uint64_t directory = kRoot;
  while (true) {
    const std::size_t slash = path.find('/');
    const auto found = nodes_[directory].children.find(path.substr(0, slash));
    if (found == nodes_[directory].children.end()) {
      return 0;
    }
    if (slash == std::string_view::npos) {
      const std::uint64_t share = nodes_[found->second].share;
      if (share != 0) {
        nodes_[directory].children.erase(found);
      }
      return share;
    }
    directory = found->second;
    path.remove_prefix(slash + 1);
  }
}

}  // namespace msb::virtio
