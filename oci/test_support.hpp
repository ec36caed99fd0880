// SPDX-License-Identifier: Apache-2.0
// What the tests of this room share: tar archives built byte by byte, so that they can be wrong in
// any way; layouts; and a reader of EROFS images that is independent of the writer.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "oci/layout.hpp"
#include "oci/piece_source.hpp"

namespace msb::oci::testing {

// A fresh directory below the system's temporary one, removed with all it holds at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(std::string_view name) const {
    return path_ + "/" + std::string(name);
  }

 private:
  std::string path_;
};

void write_file(const std::string& path, std::string_view content);
// An unnamed file for reading and writing, at offset 0.
Fd temporary_file(std::string_view content = {});
std::vector<std::string> list_directory(const std::string& path);

// Header fields of a tar entry; see POSIX pax, "ustar Interchange Format".
struct TarHeader {
  std::string name;
  char type = '0';
  std::string link = {};  // NOLINT(readability-redundant-member-init): g++ wants it named otherwise
  unsigned mode = 0644;
  unsigned uid = 0;
  unsigned gid = 0;
  std::uint64_t mtime = 0;
  unsigned major = 0;
  unsigned minor = 0;
};

class Tar {
 public:
  using Records = std::vector<std::pair<std::string, std::string>>;

  // Each adds one entry; with `pax` an extended header in front of it.
  Tar& add(const TarHeader& header, std::string_view content = {}, const Records& pax = {});
  Tar& file(const std::string& name, std::string_view content = {});
  Tar& directory(const std::string& name, unsigned mode = 0755);
  Tar& symlink(const std::string& name, const std::string& target);
  Tar& hard_link(const std::string& name, const std::string& target);
  Tar& raw(std::string_view bytes);

  // With the end-of-archive marker.
  [[nodiscard]] std::string bytes() const { return bytes_ + std::string(1024, '\0'); }
  [[nodiscard]] std::string without_end() const { return bytes_; }

 private:
  std::string bytes_;
};

std::string pax_records(const Tar::Records& records);

std::string gzip(std::string_view content);
std::string zstd(std::string_view content);

// Gives `content` in pieces of `size` bytes.
class Pieces final : public PieceSource {
 public:
  Pieces(std::string_view content, std::size_t size) : rest_(content), size_(size) {}
  Result<std::span<const std::byte>> next() override;

 private:
  std::string_view rest_;
  std::size_t size_;
};

Digest digest_of(std::string_view content);
// The layer that `tar` gives when packed so.
struct PackedLayer {
  Layer layer;
  std::string blob;
};
PackedLayer pack(std::string_view tar, Compression compression = Compression::kGzip);

// Writes an OCI layout into `path` with one image of these layers under `tag`.
void write_layout(const std::string& path, const std::vector<PackedLayer>& layers,
                  std::string_view tag);
// Writes `content` as a blob of the layout; gives its descriptor as JSON.
std::string write_blob(const std::string& path, std::string_view media_type,
                       std::string_view content);
void write_index(const std::string& path, std::string_view manifests);

// One file of an EROFS image.
struct ImageFile {
  std::uint64_t inode = 0;
  unsigned mode = 0;  // with the type
  unsigned links = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::int64_t mtime = 0;
  std::uint32_t mtime_nanoseconds = 0;
  dev_t device = 0;
  std::string content;  // of a regular file, or the target of a symbolic link
  std::map<std::string, std::string> xattrs;

  bool operator==(const ImageFile&) const = default;
};

// All files of the image by their path, the root as "". Throws std::runtime_error on anything that
// is not in order.
using Listing = std::map<std::string, ImageFile>;
Listing read_image(int fd);

// The same of a directory of the host.
Listing read_directory(const std::string& path);

// Converts and reads back; throws with the error's message when it fails.
Listing convert(const Tar& tar);
// The error of a conversion; throws when it succeeds.
std::string conversion_error(const Tar& tar);

}  // namespace msb::oci::testing
