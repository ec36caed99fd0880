// SPDX-License-Identifier: Apache-2.0
// Decompression of layer blobs.
#pragma once

#include <memory>

#include "base/result.hpp"
#include "oci/image_spec.hpp"
#include "oci/piece_source.hpp"

namespace msb::oci {

// Decompresses what `packed` gives, which must outlive it. All members of a gzip file (RFC
// 1952, 2.2) and all frames of a zstd file (RFC 8878, 3) are read, one after another; anything else
// behind them is an error, as are a bad checksum and an early end. Memory is bounded: 32 KiB of
// history for gzip, 128 MiB for zstd (larger windows are refused).
std::unique_ptr<PieceSource> make_decompressor(Compression compression, PieceSource& packed);

}  // namespace msb::oci
