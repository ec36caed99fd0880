// SPDX-License-Identifier: Apache-2.0
// How many bytes have gone by, on standard error: after half a second, on a terminal only.
#pragma once

#include <chrono>
#include <cstdint>

#include "oci/piece_source.hpp"

namespace msb::cli {

class ByteProgress final : public oci::PieceSource {
 public:
  // `source` must outlive it.
  explicit ByteProgress(oci::PieceSource& source);
  ByteProgress(const ByteProgress&) = delete;
  ByteProgress& operator=(const ByteProgress&) = delete;
  ~ByteProgress() override;

  Result<std::span<const std::byte>> next() override;

 private:
  using Clock = std::chrono::steady_clock;

  oci::PieceSource& source_;
  const bool shown_;
  const Clock::time_point begun_;
  Clock::time_point next_draw_;
  std::uint64_t bytes_ = 0;
  bool drawn_ = false;
};

}  // namespace msb::cli
