// SPDX-License-Identifier: Apache-2.0
// Guest RAM of a fuzz target, and what is written to it.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "virtio/testing/fuzz_input.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio::testing {

// Two ranges with a page between them that is none, all zero at first. One exists at a time: the
// mapping is the same for every input.
class FuzzRam {
 public:
  static constexpr GuestAddress kStart = GuestRam::kStart;
  static constexpr std::uint64_t kFirst = 8 * kPage;
  static constexpr std::uint64_t kHole = kPage;
  static constexpr std::uint64_t kSecond = 2 * kPage;

  FuzzRam() {
    for (const GuestMemory::Mapping& mapping : memory().mappings()) {
      std::memset(mapping.host, 0, mapping.range.size);
    }
  }

  [[nodiscard]] GuestRam& ram() const {
    static GuestRam ram{{kStart, kFirst}, {kStart + kFirst + kHole, kSecond}};
    return ram;
  }
  [[nodiscard]] const GuestMemory& memory() const { return ram().memory(); }

  // Two bytes: from a page below RAM to a page above it, or in the last 256 bytes that there are.
  static GuestAddress take_address(FuzzInput& input) {
    constexpr std::uint64_t kReach = kFirst + kHole + kSecond + 2 * kPage;
    const auto near = input.take<std::uint16_t>();
    return near >= 0xff00 ? ~std::uint64_t{0xffff} | near : kStart - kPage + near % kReach;
  }

  // As much as is RAM from `address` on.
  void poke(GuestAddress address, std::span<const std::byte> bytes) const {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if (const auto slice = memory().slice(address + i, 1)) {
        slice->write(0, bytes.subspan(i, 1));
      }
    }
  }
  template <typename T>
    requires(!std::convertible_to<T, std::span<const std::byte>>)
  void poke(GuestAddress address, const T& value) const {
    poke(address, std::as_bytes(std::span(&value, 1)));
  }

  [[nodiscard]] bool holds(const iovec& range) const {
    const auto* start = static_cast<const std::byte*>(range.iov_base);
    return std::ranges::any_of(memory().mappings(), [&](const GuestMemory::Mapping& mapping) {
      return start >= mapping.host && start + range.iov_len <= mapping.host + mapping.range.size;
    });
  }
};

// Says what an operation may write to guest memory, once it has.
class MemoryWatch {
 public:
  explicit MemoryWatch(const FuzzRam& ram) : ram_(ram) {
    for (const GuestMemory::Mapping& mapping : ram_.memory().mappings()) {
      before_.emplace_back(mapping.host, mapping.host + mapping.range.size);
    }
  }

  void permit(const iovec& range) {
    const auto* start = static_cast<const std::byte*>(range.iov_base);
    for (std::size_t i = 0; i < before_.size(); ++i) {
      const GuestMemory::Mapping& mapping = ram_.memory().mappings()[i];
      if (start >= mapping.host && start < mapping.host + mapping.range.size) {
        std::copy_n(start, range.iov_len, before_[i].begin() + (start - mapping.host));
      }
    }
  }
  void permit(GuestAddress address, std::uint64_t length) {
    permit(ram_.memory().slice(address, length)->as_iovec());
  }

  void check(std::string_view what) const {
    for (std::size_t i = 0; i < before_.size(); ++i) {
      const std::byte* now = ram_.memory().mappings()[i].host;
      require(std::memcmp(before_[i].data(), now, before_[i].size()) == 0, what);
    }
  }

 private:
  const FuzzRam& ram_;
  std::vector<std::vector<std::byte>> before_;  // of each range
};

}  // namespace msb::virtio::testing
