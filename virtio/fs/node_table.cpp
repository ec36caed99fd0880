// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/node_table.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

namespace msb::virtio {

Outcome<Node*> NodeTable::add_root(std::shared_ptr<Share> share) {
  const auto status = examine(share->root.get());
  if (!status) {
    return std::unexpected(status.error());
  }
  Fd path(::fcntl(share->root.get(), F_DUPFD_CLOEXEC, 0));
  if (!path) {
    return failed_call();
  }
  const InodeKey key = key_of(*status);
  const std::uint64_t id = next_id_++;
  Node& node = nodes_[id];
  node.id = id;
  node.key = key;
  node.type = status->stx_mode & S_IFMT;
  node.lookups = 1;
  node.path = std::make_shared<const Fd>(std::move(path));
  by_inode_[key_in_table(*share, key)] = id;
  share->root_node = id;
  share->device = key.device;
  node.share = std::move(share);
  return &node;
}

Node* NodeTable::find(std::uint64_t id) {
  const auto found = nodes_.find(id);
  return found == nodes_.end() ? nullptr : &found->second;
}

Node* NodeTable::find(const Share& share, const InodeKey& key) {
  const auto found = by_inode_.find(key_in_table(share, key));
  return found == by_inode_.end() ? nullptr : find(found->second);
}

Outcome<Node*> NodeTable::enter(Node& parent, const std::string& name, const struct statx& status,
                                Fd path) {
  const InodeKey key = key_of(status);
  Node* node = find(*parent.share, key);
  if (node == nullptr) {
    if (nodes_.size() >= max_nodes_) {
      return std::unexpected(ENFILE);
    }
    const std::uint64_t id = next_id_++;
    node = &nodes_[id];
    node->id = id;
    node->share = parent.share;
    node->key = key;
    node->type = status.stx_mode & S_IFMT;
    by_inode_[key_in_table(*parent.share, key)] = id;
  }
  ++node->lookups;
  if (node->id != node->share->root_node) {
    rename(*node, parent.id, name);
  }
  if (path) {
    keep(*node, std::move(path));
  }
  return node;
}

void NodeTable::forget(std::uint64_t id, std::uint64_t count) {
  const auto found = nodes_.find(id);
  if (found == nodes_.end()) {
    return;
  }
  Node& node = found->second;
  const std::uint64_t ours = id == node.share->root_node ? 1 : 0;
  node.lookups -= std::min(node.lookups - ours, count);
  if (node.lookups == 0) {
    erase(found);
  }
}

void NodeTable::erase(std::unordered_map<std::uint64_t, Node>::iterator position) {
  Node& node = position->second;
  drop_path(node);
  const auto key = by_inode_.find(key_in_table(*node.share, node.key));
  if (key != by_inode_.end() && key->second == node.id) {
    by_inode_.erase(key);
  }
  nodes_.erase(position);
}

PathFd NodeTable::opened(const Node& node) {
  for (const std::weak_ptr<const Fd>& each : node.opened) {
    if (PathFd file = each.lock()) {
      return file;
    }
  }
  return nullptr;
}

Outcome<PathFd> NodeTable::path(Node& node) {
  auto found = path_by_name(node);
  if (!found && found.error() == ESTALE) {
    if (PathFd file = opened(node)) {
      return file;
    }
  }
  return found;
}

Outcome<PathFd> NodeTable::path_by_name(Node& node) {
  // Up to the nearest ancestor that is open: a loop, since a guest makes trees as deep as it likes.
  std::vector<Node*> closed;
  Node* at = &node;
  while (at->path == nullptr) {
    closed.push_back(at);
    at = find(at->parent);
    if (at == nullptr || closed.size() > nodes_.size()) {
      return std::unexpected(ESTALE);
    }
  }
  if (at->in_recent) {
    recent_.splice(recent_.begin(), recent_, at->recent);
  }
  PathFd current = at->path;
  for (auto next = closed.rbegin(); next != closed.rend(); ++next) {
    Node& child = **next;
    auto opened = open_entry(current->get(), child.name, O_PATH);
    if (!opened) {
      return std::unexpected(opened.error() == ENOENT ? ESTALE : opened.error());
    }
    const auto status = examine(opened->get());
    if (!status || key_of(*status) != child.key) {
      return std::unexpected(ESTALE);
    }
    current = std::make_shared<const Fd>(std::move(*opened));
    use(child, current);
  }
  return current;
}

void NodeTable::use(Node& node, PathFd path) {
  if (recent_.size() >= max_descriptors_) {
    drop_path(*find(recent_.back()));
  }
  node.path = std::move(path);
  recent_.push_front(node.id);
  node.recent = recent_.begin();
  node.in_recent = true;
}

void NodeTable::drop_path(Node& node) {
  node.path.reset();
  if (std::exchange(node.in_recent, false)) {
    recent_.erase(node.recent);
  }
}

void NodeTable::keep(Node& node, Fd path) {
  if (node.path == nullptr) {
    use(node, std::make_shared<const Fd>(std::move(path)));
  }
}

void NodeTable::rename(Node& node, std::uint64_t parent, std::string name) {
  node.parent = parent;
  node.name = std::move(name);
}

void NodeTable::erase_if(const std::function<bool(const Node&)>& unwanted) {
  for (auto at = nodes_.begin(); at != nodes_.end();) {
    const auto next = std::next(at);
    if (unwanted(at->second)) {
      erase(at);
    }
    at = next;
  }
}

void NodeTable::remove(const Share& share) {
  erase_if([&](const Node& node) { return node.share.get() == &share; });
}

void NodeTable::forget_all() {
  erase_if([](const Node& node) { return node.id != node.share->root_node; });
}

}  // namespace msb::virtio
