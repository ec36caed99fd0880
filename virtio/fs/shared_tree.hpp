// SPDX-License-Identifier: Apache-2.0
// The synthetic, read-only tree that a virtio-fs device shows: directories made of names, files
// that are either descriptors or texts, and places where shared host directories begin.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::virtio {

// Node ids are those of FUSE: the root is 1, and ids stay valid as long as the tree.
class SharedTree {
 public:
  struct Node {
    std::uint64_t parent = 0;
    bool directory = false;
    std::map<std::string, std::uint64_t, std::less<>> children;  // of a directory
    Fd file;                                                     // of a file that is a descriptor
    std::string text;                                            // of a file that is a text
    std::uint64_t size = 0;        // of a file, bytes, as it was when added
    std::uint64_t share = 0;       // not a file of ours: the node that is the root of a share
    bool share_directory = false;  // which is one
  };
  static constexpr std::uint64_t kRoot = 1;

  SharedTree();

  // Adds a file at `path` (relative, '/' between components), with the directories on the way.
  // Fails on an empty, "." or ".." component, on a path that is taken, and when `file` is no
  // regular file.
  Result<void> add_file(std::string_view path, Fd file);
  Result<void> add_text(std::string_view path, std::string text);
  // Likewise the root of a share, by its number among the shared nodes.
  Result<void> add_share(std::string_view path, std::uint64_t root, bool directory);
  // Takes away the root of a share: its number, or 0 when there is none at this path.
  std::uint64_t remove_share(std::string_view path);

  // Null when there is no such node.
  [[nodiscard]] const Node* find(std::uint64_t id) const;
  // The id of `name` in a directory, 0 when it has none.
  [[nodiscard]] std::uint64_t lookup(const Node& directory, std::string_view name) const;

 private:
  Result<Node*> add_node(std::string_view path);
  std::vector<Node> nodes_;  // by id; index 0 is unused
};

}  // namespace msb::virtio
