// SPDX-License-Identifier: Apache-2.0
// The inodes of shared host directories that the guest knows: for each the number that the guest
// calls it by, how often it was handed out, and how to find it on the host: share, parent and name.
// A descriptor is only a cache of that, but for what has no name any more.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/fd.hpp"
#include "base/share_cache.hpp"
#include "virtio/fs/host_file.hpp"

namespace msb::virtio {

// A host directory or file that the guest may use.
struct Share {
  Fd root;  // O_PATH
  bool read_only = false;
  ShareCache cache = ShareCache::kAuto;
  std::uint32_t number = 0;  // tells shares apart
  std::uint64_t device = 0;  // of the root
  std::vector<std::uint64_t>
      without_xattrs;               // devices whose file systems have no "user." attributes
  bool late_errors = false;         // errors of writing may come as late as close(2): a network's
  std::uint64_t root_node = 0;      // its number in the table
  std::atomic<bool> ended = false;  // nothing of it is served any more: set on any thread

  // Whether files of a device may have attributes of the "user." kind, as far as is known.
  [[nodiscard]] bool has_xattrs(const InodeKey& key) const {
    return std::ranges::find(without_xattrs, key.device) == without_xattrs.end();
  }
  void note_no_xattrs(const InodeKey& key) {
    if (has_xattrs(key)) {
      without_xattrs.push_back(key.device);
    }
  }
};

using PathFd = std::shared_ptr<const Fd>;  // O_PATH, open as long as somebody uses it

struct Node {
  std::uint64_t id = 0;
  std::shared_ptr<Share> share;
  InodeKey key;
  mode_t type = 0;            // on the host
  std::uint64_t lookups = 0;  // what the guest is to give back by FORGET
  std::uint64_t parent = 0;   // 0: it has no name, or is the root of its share
  std::string name;
  // The files that the guest has open of it: how it is found when its name leads elsewhere.
  std::vector<std::weak_ptr<const Fd>> opened;
  // Of a directory, as last shown: whether what is made in it gets its group, and which that is.
  bool gives_group = false;
  std::uint32_t group = 0;
  // Of a directory: a file in it was locked.
  bool has_locks = false;

 private:
  friend class NodeTable;
  PathFd path;
  std::list<std::uint64_t>::iterator recent;  // where `path` stands among those in use, if kept
  bool in_recent = false;
};

class NodeTable {
 public:
  // At most `max_nodes` at a time, and about `max_descriptors` of them kept open.
  NodeTable(std::size_t max_nodes, std::size_t max_descriptors)
      : max_nodes_(max_nodes), max_descriptors_(max_descriptors) {}

  // The root of a share, which no FORGET removes. ENFILE when there is no room.
  Outcome<Node*> add_root(std::shared_ptr<Share> share);

  // Null when the guest knows none of this number. Pointers are valid until the node is forgotten.
  [[nodiscard]] Node* find(std::uint64_t id);
  [[nodiscard]] Node* find(const Share& share, const InodeKey& key);

  // Makes known, or finds, the inode that is entry `name` of `parent` now, and counts one lookup.
  // `path`: an O_PATH descriptor of it, if there is one already. ENFILE when there is no room.
  Outcome<Node*> enter(Node& parent, const std::string& name, const struct statx& status,
                       Fd path = {});
  // The guest gives back `count` lookups, at most those that it has.
  void forget(std::uint64_t id, std::uint64_t count);

  // A descriptor of the node: one that is kept, by its name, or of a file that is open. ESTALE when
  // what has the name now is another inode, or nothing.
  Outcome<PathFd> path(Node& node);

  // A node has another name now, or none (parent 0).
  static void rename(Node& node, std::uint64_t parent, std::string name);
  // Keeps an O_PATH descriptor of a node, so that it is found also once it has no name.
  void keep(Node& node, Fd path);
  [[nodiscard]] static bool is_open(const Node& node) { return node.path != nullptr; }

  // Forgets all nodes of a share, or all but the roots of shares.
  void remove(const Share& share);
  void forget_all();

  [[nodiscard]] std::size_t size() const { return nodes_.size(); }
  [[nodiscard]] bool has_room() const { return nodes_.size() < max_nodes_; }
  // One of the files that are open, or null.
  static PathFd opened(const Node& node);
  [[nodiscard]] std::size_t open_descriptors() const { return recent_.size(); }

 private:
  struct Key {
    std::uint32_t share;
    InodeKey inode;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const {
      std::uint64_t hash = key.inode.number * 0x9e3779b97f4a7c15U;
      hash ^= key.inode.device + (std::uint64_t{key.share} << 40) + (hash >> 29);
      return static_cast<std::size_t>(hash * 0xbf58476d1ce4e5b9U);
    }
  };
  static Key key_in_table(const Share& share, const InodeKey& key) { return {share.number, key}; }

  Outcome<PathFd> path_by_name(Node& node);
  void use(Node& node, PathFd path);
  void drop_path(Node& node);
  void erase(std::unordered_map<std::uint64_t, Node>::iterator position);
  void erase_if(const std::function<bool(const Node&)>& unwanted);

  const std::size_t max_nodes_;
  const std::size_t max_descriptors_;
  std::uint64_t next_id_ = std::uint64_t{1} << 32;  // below are those of the synthetic tree
  std::unordered_map<std::uint64_t, Node> nodes_;
  std::unordered_map<Key, std::uint64_t, KeyHash> by_inode_;
  std::list<std::uint64_t> recent_;  // nodes that a descriptor is kept of, last used first
};

}  // namespace msb::virtio
