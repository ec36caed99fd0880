// SPDX-License-Identifier: Apache-2.0
// Many small byte strings in few allocations.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace msb::oci {

// Keeps strings of at most kChunkSize bytes until it is destroyed. They never move.
class Arena {
 public:
  static constexpr std::size_t kChunkSize = std::size_t{1} << 20;  // bytes

  // Where a stored string lies.
  struct Ref {
    std::uint32_t offset = 0;
    std::uint32_t length = 0;
  };

  // Holds up to `capacity` bytes (at most 4 GiB), ends of chunks that stay unused included.
  explicit Arena(std::size_t capacity) : max_chunks_(capacity / kChunkSize) {}

  // Whether store() can take a string of `length` bytes.
  [[nodiscard]] bool has_room(std::size_t length) const {
    const bool fits_last = !chunks_.empty() && kChunkSize - used_ >= length;
    return length <= kChunkSize && (fits_last || chunks_.size() < max_chunks_);
  }

  // Nothing when the arena is full or `text` longer than kChunkSize.
  std::optional<Ref> store(std::string_view text) {
    if (!has_room(text.size())) {
      return std::nullopt;
    }
    if (chunks_.empty() || kChunkSize - used_ < text.size()) {
      chunks_.push_back(std::make_unique_for_overwrite<char[]>(kChunkSize));
      used_ = 0;
    }
    const std::size_t offset = (chunks_.size() - 1) * kChunkSize + used_;
    if (!text.empty()) {
      std::memcpy(chunks_.back().get() + used_, text.data(), text.size());
    }
    used_ += text.size();
    return Ref{static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(text.size())};
  }

  [[nodiscard]] std::string_view at(Ref ref) const {
    if (ref.length == 0) {
      return {};
    }
    return {chunks_[ref.offset / kChunkSize].get() + ref.offset % kChunkSize, ref.length};
  }

 private:
  std::vector<std::unique_ptr<char[]>> chunks_;
  std::size_t max_chunks_;
  std::size_t used_ = 0;  // of the last chunk
};

}  // namespace msb::oci
