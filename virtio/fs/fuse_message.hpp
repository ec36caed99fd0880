// SPDX-License-Identifier: Apache-2.0
// Reading what follows a fuse_in_header, and writing what follows a fuse_out_header
// (<linux/fuse.h>): the only places that touch the bytes of either.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace msb::virtio {

// The arguments of a request, in order. What was taken is gone.
class FuseArguments {
 public:
  explicit FuseArguments(std::span<const std::byte> bytes) : bytes_(bytes) {}

  // The next structure; nothing when there are too few bytes.
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  std::optional<T> take() {
    if (bytes_.size() < sizeof(T)) {
      return std::nullopt;
    }
    T value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_ = bytes_.subspan(sizeof value);
    return value;
  }

  // The same of one of which only the first `size` bytes are there, in earlier versions of the
  // protocol: the rest is zero.
  template <typename T>
  std::optional<T> take_part(std::size_t size) {
    if (bytes_.size() < size) {
      return std::nullopt;
    }
    T value{};
    std::memcpy(&value, bytes_.data(), std::min(sizeof value, size));
    bytes_ = bytes_.subspan(size);
    return value;
  }

  // The next text, without the NUL that ends it; nothing when none does.
  std::optional<std::string_view> take_text() {
    const auto* text = reinterpret_cast<const char*>(bytes_.data());
    const std::size_t length = ::strnlen(text, bytes_.size());
    if (length == bytes_.size()) {
      return std::nullopt;
    }
    bytes_ = bytes_.subspan(length + 1);
    return std::string_view(text, length);
  }

  std::optional<std::span<const std::byte>> take_bytes(std::size_t size) {
    if (bytes_.size() < size) {
      return std::nullopt;
    }
    const auto taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }

  [[nodiscard]] std::size_t size() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
};

template <typename T>
  requires std::is_trivially_copyable_v<T>
void append(std::vector<std::byte>& to, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace msb::virtio
