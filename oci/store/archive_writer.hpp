// SPDX-License-Identifier: Apache-2.0
// Images of a store as an archive that other programs load.
#pragma once

#include <vector>

#include "base/result.hpp"
#include "oci/store/store.hpp"

namespace msb::oci {

enum class ArchiveKind : std::uint8_t {
  kOci,     // an OCI image layout as a tar: blobs as they came, so every digest stays
  kDocker,  // as `docker save` writes it: layers unpacked, so image IDs and diff IDs stay
};

struct SavedImage {
  CatalogEntry entry;
  std::string tag;   // for kOci; empty for none
  std::string name;  // for kDocker: the short NAME:TAG; empty for none
};

// Writes the archive to `fd`, which need not seek. Equal images give equal bytes. Fails when a blob
// is missing or damaged: then nothing was written, or what was is not an archive.
Result<void> write_archive(int fd, Store& store, const std::vector<SavedImage>& images,
                           ArchiveKind kind);

}  // namespace msb::oci
