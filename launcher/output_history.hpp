// SPDX-License-Identifier: Apache-2.0
// What a stream said last, by offset.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace msb::launcher {

// Bytes are counted from 0; the last `kept` of them stay readable. It takes up to twice as much.
class OutputHistory {
 public:
  explicit OutputHistory(std::size_t kept) : kept_(kept) {}

  void append(std::span<const std::byte> bytes) {
    end_ += bytes.size();
    bytes = bytes.last(std::min(bytes.size(), kept_));
    if (bytes_.size() + bytes.size() > 2 * kept_) {
      const std::size_t stay = std::min(bytes_.size(), kept_ - bytes.size());
      bytes_.erase(bytes_.begin(), bytes_.end() - static_cast<std::ptrdiff_t>(stay));
    }
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }

  // Behind the last byte.
  [[nodiscard]] std::uint64_t end() const { return end_; }
  // Of the first byte that is still here.
  [[nodiscard]] std::uint64_t oldest() const { return end_ - std::min(bytes_.size(), kept_); }
  // `offset`: from oldest() to end().
  [[nodiscard]] std::span<const std::byte> from(std::uint64_t offset) const {
    return std::span(bytes_).last(static_cast<std::size_t>(end_ - offset));
  }

 private:
  const std::size_t kept_;
  std::uint64_t end_ = 0;
  std::vector<std::byte> bytes_;
};

}  // namespace msb::launcher
