// SPDX-License-Identifier: Apache-2.0
// Archives of images: an OCI image layout as a tar (what `skopeo copy … oci-archive:` writes), and
// what `docker save` writes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "oci/image.hpp"

namespace msb::oci {

// An image of an archive.
struct ArchivedImage {
  Descriptor target;               // manifest or index
  std::vector<std::string> names;  // as the archive writes them: full references, or tags alone
};

// The images of a layout's index for our platform. Fails when there are only others.
Result<std::vector<ArchivedImage>> images_of(const Index& index);

// An open archive. Nothing in it names a file of the host: entries are found by their names in the
// archive, and symbolic links are followed inside it.
class Archive final : public ImageSource {
 public:
  // Reads the archive's index. `file` is read from its start when it can seek; when it cannot, or
  // is compressed (gzip, zstd), its content first goes to an unnamed file in the directory
  // `spool`. Fails when it is no archive of images.
  static Result<std::unique_ptr<Archive>> open(Fd file, int spool);

  [[nodiscard]] const std::vector<ArchivedImage>& images() const { return images_; }

  Result<std::string> document(const Descriptor& descriptor) override;
  Result<std::unique_ptr<PieceSource>> blob(const Descriptor& descriptor) override;

 private:
  // Where an entry's content lies, in bytes.
  struct Range {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };

  explicit Archive(Fd file) : file_(std::move(file)) {}

  Result<void> read_entries();
  Result<void> read_layout();
  Result<void> read_docker_archive();
  Result<ArchivedImage> assemble(const struct DockerArchiveImage& image);
  Result<Descriptor> describe_layer(const Range& range, const Digest& diff_id) const;

  [[nodiscard]] Result<Range> find(const std::string& name) const;
  [[nodiscard]] Result<std::string> read(const Range& range) const;
  [[nodiscard]] Result<std::string> read(const std::string& name) const;

  Fd file_;
  std::map<std::string, Range, std::less<>> files_;
  std::map<std::string, std::string, std::less<>> links_;  // of symbolic links, resolved lexically
  std::vector<ArchivedImage> images_;
  std::map<Digest, std::string> documents_;  // made for images that came without them
  std::map<Digest, Range> blobs_;            // of images whose blobs have other names
};

}  // namespace msb::oci
