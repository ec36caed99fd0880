// SPDX-License-Identifier: Apache-2.0
// A stream of bytes that is pulled piece by piece: a file, what decompresses it, what verifies it,
// one over the other.
#pragma once

#include <cstddef>
#include <span>

#include "base/result.hpp"

namespace msb::oci {

class PieceSource {
 public:
  virtual ~PieceSource() = default;

  // The next bytes, valid until the next call; empty at the end, and then for ever. Not to be
  // called after a failure.
  virtual Result<std::span<const std::byte>> next() = 0;
};

// Calls `visit` with every piece up to the end; it returns Result<void>, and its failure ends the
// reading as the source's does.
template <typename Visit>
Result<void> for_each_piece(PieceSource& source, Visit visit) {
  for (;;) {
    const auto piece = source.next();
    if (!piece) {
      return std::unexpected(piece.error());
    }
    if (piece->empty()) {
      return {};
    }
    if (Result<void> visited = visit(*piece); !visited) {
      return visited;
    }
  }
}

}  // namespace msb::oci
