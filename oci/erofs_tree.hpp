// SPDX-License-Identifier: Apache-2.0
// Directories of an EROFS image that our own writer made, read from the host. What a damaged file
// says is checked before it is used.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "oci/erofs_format.hpp"

namespace msb::oci {

class ErofsTree {
 public:
  // An inode and where it is.
  struct Node {
    std::uint64_t offset = 0;  // bytes from the start of the image
    erofs::Inode inode{};

    [[nodiscard]] bool is_directory() const;
    [[nodiscard]] bool is_implied() const { return (inode.msb_marks & erofs::kMarkImplied) != 0; }
    // It or something below it is.
    [[nodiscard]] bool has_implied() const { return inode.msb_marks != 0; }
  };

  // `fd` is kept by the caller. Fails when it has no superblock.
  static Result<ErofsTree> open(int fd);

  // Each fails when the image is cut off or makes no sense.
  [[nodiscard]] Result<Node> root() const;
  [[nodiscard]] Result<std::optional<Node>> find(const Node& directory,
                                                 std::string_view name) const;
  // Names of the directories in `directory` that are implied or have implied ones below.
  [[nodiscard]] Result<std::vector<std::string>> names_with_implied(const Node& directory) const;
  // The attribute entries, as encode_xattrs() gives them.
  [[nodiscard]] Result<std::string> xattrs(const Node& node) const;

 private:
  ErofsTree(int fd, const erofs::Superblock& super);

  struct Entry {
    std::string_view name;
    std::uint64_t nid = 0;
    erofs::FileTypeCode type{};
  };
  // Calls `visit` for each entry until it gives false.
  using Visitor = std::function<Result<bool>(const Entry&)>;
  [[nodiscard]] Result<void> for_each(const Node& directory, const Visitor& visit) const;
  static Result<bool> visit_block(std::string_view block, const Visitor& visit);
  [[nodiscard]] Result<Node> node(std::uint64_t nid) const;

  int fd_;
  std::uint64_t meta_;  // bytes from the start of the image
  std::uint64_t root_nid_;
};

}  // namespace msb::oci
