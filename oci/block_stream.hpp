// SPDX-License-Identifier: Apache-2.0
// Sequential output into a file at growing positions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"

namespace msb::oci {

// Collects writes in a buffer. What is skipped reads as zeros and, beyond a buffer's length, takes
// no space on disk: the file must be empty at first. Call flush() at the end; the file's length is
// then set by the caller.
class BlockStream {
 public:
  explicit BlockStream(int fd) : fd_(fd) { buffer_.reserve(kBufferSize); }

  // Where the next byte goes.
  [[nodiscard]] std::uint64_t position() const { return start_ + buffer_.size(); }

  // Fails with the errno of the system when the file cannot take the bytes (full, too large).
  Result<void> write(std::span<const std::byte> bytes);
  Result<void> skip(std::uint64_t count);
  Result<void> align(std::uint64_t boundary) {
    return skip((boundary - position() % boundary) % boundary);
  }
  Result<void> flush();

 private:
  static constexpr std::size_t kBufferSize = std::size_t{1} << 20;  // bytes

  int fd_;
  std::uint64_t start_ = 0;  // position of the buffer's first byte
  std::vector<std::byte> buffer_;
};

// Writes all of `bytes` at `offset`.
Result<void> write_at(int fd, std::span<const std::byte> bytes, std::uint64_t offset);

}  // namespace msb::oci
