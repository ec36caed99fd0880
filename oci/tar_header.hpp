// SPDX-License-Identifier: Apache-2.0
// The pieces of tar's format (POSIX pax "ustar Interchange Format" and "pax Interchange Format";
// GNU tar manual, "Basic Tar Format" and "Storing Sparse Files"), parsed without input or output.
// Where archivers disagree this reads what Go's archive/tar reads, since that is what container
// images are made and unpacked with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace msb::oci {

inline constexpr std::size_t kTarBlockSize = 512;  // bytes
inline constexpr std::size_t kMaxTarExtension = std::size_t{1}
                                                << 20;  // bytes, of a pax header or a long name
inline constexpr std::size_t kMaxSparseRuns = std::size_t{1} << 18;  // in one file

// TarHeader.type
namespace tar_type {
inline constexpr char kRegular = '0';
inline constexpr char kOldRegular = '\0';
inline constexpr char kHardLink = '1';
inline constexpr char kSymlink = '2';
inline constexpr char kCharacterDevice = '3';
inline constexpr char kBlockDevice = '4';
inline constexpr char kDirectory = '5';
inline constexpr char kFifo = '6';
inline constexpr char kContiguous = '7';
inline constexpr char kPax = 'x';
inline constexpr char kPaxGlobal = 'g';
inline constexpr char kGnuLongName = 'L';
inline constexpr char kGnuLongLink = 'K';
inline constexpr char kGnuSparse = 'S';
}  // namespace tar_type

using TarBlock = std::span<const std::byte, kTarBlockSize>;

// One header block, numbers decoded. Names are bytes without an encoding.
struct TarHeader {
  char type = tar_type::kRegular;
  bool is_gnu = false;
  std::string name;
  std::string link;
  std::int64_t mode = 0;
  std::int64_t uid = 0;
  std::int64_t gid = 0;
  std::int64_t size = 0;   // bytes that follow the header
  std::int64_t mtime = 0;  // seconds
  std::int64_t major = 0;
  std::int64_t minor = 0;
};

// Nothing for a block of zeros. Fails when the checksum is wrong or a field is no number.
Result<std::optional<TarHeader>> parse_tar_header(TarBlock block);

// Records of a pax extended header, in their order; views into `text`. Fails when a record is
// malformed.
using PaxRecords = std::vector<std::pair<std::string_view, std::string_view>>;
Result<PaxRecords> parse_pax_records(std::string_view text);

struct PaxTime {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
};
Result<PaxTime> parse_pax_time(std::string_view text);
Result<std::int64_t> parse_decimal(std::string_view text);

// A run of data in a sparse file.
struct SparseRun {
  std::uint64_t offset = 0;  // bytes from the start of the file
  std::uint64_t length = 0;  // bytes
};

// Part of the map of an old GNU sparse file: of the header block, or of an extension block behind
// it.
struct GnuSparsePart {
  std::vector<SparseRun> runs;
  bool continues = false;      // an extension block follows
  std::int64_t real_size = 0;  // bytes of the file; in the header only
};
Result<GnuSparsePart> parse_gnu_sparse_header(TarBlock block);
Result<GnuSparsePart> parse_gnu_sparse_extension(TarBlock block);

// The map of the pax formats 0.0 and 0.1, "offset,length,offset,length". Fails when it is malformed
// or too long.
Result<std::vector<SparseRun>> parse_sparse_map(std::string_view text);

// Fails unless the runs ascend, do not overlap and end within `size`.
Result<void> check_sparse_runs(std::span<const SparseRun> runs, std::uint64_t size);

}  // namespace msb::oci
