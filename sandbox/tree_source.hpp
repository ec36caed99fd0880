// SPDX-License-Identifier: Apache-2.0
// Files of this host as a tar stream.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "oci/piece_source.hpp"

namespace msb::sandbox {

struct TreeOptions {
  // What the file or directory is called in the stream; empty: the content of the directory alone.
  std::string name;
  bool owners = false;  // as they are, with exact times; else all is root's
};

// Regular files, directories, symbolic links (as such, never followed) and FIFOs. Memory holds the
// names of the directories on the way, not the tree. Fails when something cannot be read, or
// changes while it is.
class TreeSource final : public oci::PieceSource {
 public:
  // `path`: not followed when it is a symbolic link.
  static Result<TreeSource> open(const std::string& path, TreeOptions options);

  Result<std::span<const std::byte>> next() override;

  // Sockets and device nodes, which are left out; the path of the first.
  [[nodiscard]] std::uint64_t left_out() const { return left_out_; }
  [[nodiscard]] const std::string& first_left_out() const { return first_left_out_; }

 private:
  struct Level {
    Fd directory;
    std::string path;                // on this host, for sentences
    std::string name;                // in the stream; empty, or with a slash at its end
    std::vector<std::string> names;  // still to come, the next one last
  };

  explicit TreeSource(TreeOptions options) : options_(std::move(options)) {}
  Result<void> step();
  Result<void> add(int directory, const std::string& entry, const std::string& path,
                   const std::string& name);
  Result<void> enter(int directory, const std::string& entry, const std::string& path,
                     std::string name);
  Result<void> open_file(int directory, const std::string& entry, const std::string& path,
                         const std::string& name);
  Result<void> read_content();
  void add_header(const struct stat& status, const std::string& name, const std::string& target);

  TreeOptions options_;
  std::vector<Level> levels_;
  std::vector<std::byte> piece_;
  bool given_ = false;  // the piece; what open() added is the first one's
  Fd file_;             // that is being read
  std::string file_path_;
  std::uint64_t file_size_ = 0;
  std::uint64_t file_left_ = 0;
  bool ended_ = false;
  std::uint64_t left_out_ = 0;
  std::string first_left_out_;
};

}  // namespace msb::sandbox
