// SPDX-License-Identifier: Apache-2.0
// A file, or a part of one, as a stream of pieces.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "base/fd.hpp"
#include "oci/piece_source.hpp"

namespace msb::oci {

class FileSource final : public PieceSource {
 public:
  // Reads `length` bytes from `offset` on, or up to the end of the file where that comes first.
  // `fd` is kept by the caller; its own position is neither used nor moved.
  explicit FileSource(int fd, std::uint64_t offset = 0,
                      std::uint64_t length = std::numeric_limits<std::uint64_t>::max())
      : fd_(fd), offset_(offset), left_(length), buffer_(kBufferSize) {}
  // The same of a file that it owns.
  explicit FileSource(Fd file) : FileSource(file.get()) { owned_ = std::move(file); }

  Result<std::span<const std::byte>> next() override;

 private:
  static constexpr std::size_t kBufferSize = std::size_t{256} << 10;  // bytes

  Fd owned_;
  int fd_;
  std::uint64_t offset_;
  std::uint64_t left_;
  std::vector<std::byte> buffer_;
};

}  // namespace msb::oci
