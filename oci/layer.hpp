// SPDX-License-Identifier: Apache-2.0
// Conversion of one layer: blob -> decompress -> tar -> EROFS, in one pass, everything verified.
#pragma once

#include <cstdint>

#include "base/result.hpp"
#include "oci/image.hpp"
#include "oci/piece_source.hpp"

namespace msb::oci {

// What one layer may cost. A layer beyond them is refused.
struct LayerLimits {
  std::uint64_t tar_bytes = std::uint64_t{64} << 30;  // decompressed size
  std::uint32_t entries = 2'000'000;  // files, directories and links, implied parents included
};

struct LayerStatistics {
  std::uint64_t blob_bytes = 0;   // compressed
  std::uint64_t tar_bytes = 0;    // decompressed
  std::uint64_t image_bytes = 0;  // length of the EROFS image
  std::uint32_t entries = 0;      // names in the image, "." and ".." not counted
  // Directories that exist only because something lies in them. The layer says nothing about their
  // owner and mode, so they hide what a lower layer said (0755, root).
  std::uint32_t implied_directories = 0;
};

// Reads the blob to its end and writes the EROFS image
// to `output_fd`, an empty regular file open for reading and writing. The blob's size and digest
// and the tar's digest are checked before this succeeds; after a failure the content of `output_fd`
// is meaningless. Fails with a sentence that names the layer's digest: read or write errors, size,
// digest or diff ID mismatch, broken compression or tar, an entry that the rules of layer_tree.hpp
// refuse, a limit passed.
Result<LayerStatistics> convert_layer(PieceSource& blob, const Layer& layer, int output_fd,
                                      const LayerLimits& limits = {});

}  // namespace msb::oci
