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

}  // namespace msb::oci
