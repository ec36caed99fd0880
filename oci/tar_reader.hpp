// SPDX-License-Identifier: Apache-2.0
// Entries of a tar archive (POSIX ustar and pax, GNU, old), as they stream by.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "oci/layer_tree.hpp"
#include "oci/piece_source.hpp"
#include "oci/tar_header.hpp"

namespace msb::oci {

// One entry. Views are valid until the next call of next_entry().
struct TarEntry {
  TreeEntry entry;                            // of a hard link, path and metadata only
  std::optional<std::string_view> hard_link;  // the target of a hard link
  std::uint64_t size = 0;                     // bytes of a regular file, holes included
  // Where in the archive the content of a regular file without holes lies, in bytes.
  std::optional<std::uint64_t> content_offset;
};

// A run of a regular file's content. What lies between runs is a hole and reads as zeros.
struct TarData {
  std::uint64_t offset = 0;  // bytes from the start of the file
  std::span<const std::byte> bytes;
};

// Why not libarchive: it converts and normalises names by the process's locale, loses a link's
// target whose ustar field is empty (Go writes that for targets without ASCII), reads times before
// 1970 wrong and sparse maps without a limit.
//
// Memory is bounded: some blocks, the extended headers of one entry (kMaxTarExtension each) and its
// sparse map.
class TarReader {
 public:
  // `source` must outlive the reader.
  explicit TarReader(PieceSource& source) : source_(source) {}

  // The next entry, or nothing at the end-of-archive marker or where the source ends between
  // entries; what is left of the one before is skipped. Fails when the source does, when the
  // archive is broken or cut off, on kinds of entries that a layer cannot have and on owners that
  // Linux cannot have.
  Result<std::optional<TarEntry>> next_entry();

  // The next run of the current entry's content, nothing at its end. Runs come in order.
  Result<std::optional<TarData>> next_data();

 private:
  // What extended headers in front of an entry say.
  struct Extensions {
    std::string pax;
    std::optional<std::string> long_name;
    std::optional<std::string> long_link;
  };

  Result<std::optional<TarHeader>> read_header();
  Result<std::optional<TarEntry>> finish_entry(TarHeader header);
  Result<void> apply_pax(TarHeader& header);
  Result<void> read_sparse_map(TarHeader& header);
  Result<void> read_gnu_sparse_map(TarHeader& header);
  Result<std::vector<SparseRun>> read_pax_sparse_map();
  Result<TarEntry> convert() const;
  Result<Metadata> metadata() const;

  Result<bool> read_block();
  Result<std::string> read_extension(std::int64_t size);
  Result<std::span<const std::byte>> take(std::uint64_t limit);
  Result<void> skip_data();

  PieceSource& source_;
  std::span<const std::byte> piece_;  // what the source gave and nobody took yet
  std::uint64_t position_ = 0;        // bytes taken
  std::array<std::byte, kTarBlockSize> block_{};

  TarHeader header_;  // of the current entry, extensions applied
  Extensions extensions_;
  std::uint32_t nanoseconds_ = 0;
  std::vector<Xattr> xattrs_;
  std::string_view sparse_major_;
  std::string_view sparse_minor_;
  std::string sparse_map_;
  std::string_view sparse_name_;
  std::string_view sparse_size_;

  std::uint64_t size_ = 0;       // of the file, holes included
  std::uint64_t stored_ = 0;     // bytes of the entry's content still to come
  std::uint64_t padding_ = 0;    // bytes behind it up to the next block
  std::vector<SparseRun> runs_;  // of the content
  std::size_t run_ = 0;          // the current one
  std::uint64_t run_done_ = 0;   // bytes of it that are read
};

}  // namespace msb::oci
