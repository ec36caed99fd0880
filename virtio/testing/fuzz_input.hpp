// SPDX-License-Identifier: Apache-2.0
// A fuzz target's input, taken apart from the front.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace msb::virtio::testing {

// Behind its end everything reads as zero, so that a cut input means something too.
class FuzzInput {
 public:
  FuzzInput(const std::uint8_t* data, std::size_t size)
      : rest_(std::as_bytes(std::span(data, size))) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }

  template <std::unsigned_integral T>
  T take() {
    T value = 0;
    const auto bytes = take_bytes(sizeof value);
    if (!bytes.empty()) {
      std::memcpy(&value, bytes.data(), bytes.size());
    }
    return value;
  }
  std::uint8_t byte() { return take<std::uint8_t>(); }
  // Below `end`, which is at most 256.
  std::size_t below(std::size_t end) { return byte() % end; }
  // As many as there are.
  std::span<const std::byte> take_bytes(std::size_t most) {
    const auto bytes = rest_.first(std::min(most, rest_.size()));
    rest_ = rest_.subspan(bytes.size());
    return bytes;
  }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace msb::virtio::testing
