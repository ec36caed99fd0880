// SPDX-License-Identifier: Apache-2.0
// Blobs under their digests in a directory, as an OCI image layout has them (image-layout.md,
// "Blobs"): blobs/sha256/<64 hexadecimal digits>.
#pragma once

#include <memory>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "oci/image.hpp"

namespace msb::oci {

// Every blob is found by its digest, relative to the directory that was opened, and must be a
// regular file: nothing in the directory can name a path or block.
class BlobDirectory final : public ImageSource {
 public:
  // `directory` is the one that holds `blobs`.
  explicit BlobDirectory(Fd directory) : directory_(std::move(directory)) {}

  // The path of a blob in the directory.
  static std::string path_of(const Digest& digest);

  // A read-only descriptor of the blob, at offset 0. Fails when it is missing (with ENOENT), no
  // regular file, or not of the size that the descriptor says. The content is not verified.
  [[nodiscard]] Result<Fd> open(const Descriptor& blob) const;

  Result<std::string> document(const Descriptor& descriptor) override;
  Result<std::unique_ptr<PieceSource>> blob(const Descriptor& descriptor) override;

 private:
  Fd directory_;
};

// Opens a regular file below `directory` without following symbolic links or waiting on a FIFO.
Result<Fd> open_regular(int directory, const std::string& path);

// All of the regular file `path` below `directory`, which may not be longer than kMaxDocumentSize.
Result<std::string> read_document_file(int directory, const std::string& path);

}  // namespace msb::oci
