// SPDX-License-Identifier: Apache-2.0
// Guest RAM for tests, with the accesses that a driver in the guest would make.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "virtio/guest_memory.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio::testing {

inline constexpr std::uint64_t kPage = 4096;

// One or more ranges of guest RAM. Where the address space allows, each lies between pages that
// fault, so that an access beyond it ends the test.
class GuestRam {
 public:
  static constexpr GuestAddress kStart = 0x10000;

  explicit GuestRam(std::uint64_t size = 16 * kPage) : GuestRam({{kStart, size}}) {}
  explicit GuestRam(std::initializer_list<GuestMemory::Range> ranges) {
    auto memory = GuestMemory::create(std::span(ranges.begin(), ranges.size()));
    require(memory.has_value(), "the host has memory for a small guest");
    memory_ = std::move(*memory);
    for (const GuestMemory::Mapping& mapping : memory_->mappings()) {
      guard(mapping.host - kPage);
      guard(mapping.host + mapping.range.size);
    }
  }
  GuestRam(const GuestRam&) = delete;
  GuestRam& operator=(const GuestRam&) = delete;
  ~GuestRam() {
    for (void* page : guards_) {
      ::munmap(page, kPage);
    }
  }

  [[nodiscard]] const GuestMemory& memory() const { return *memory_; }
  [[nodiscard]] GuestAddress start() const { return memory_->mappings().front().range.start; }
  [[nodiscard]] GuestAddress end() const {
    const GuestMemory::Range& last = memory_->mappings().back().range;
    return last.start + last.size;
  }

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void put(GuestAddress address, const T& value) {
    slice(address, sizeof value).store(0, value);
  }
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] T get(GuestAddress address) const {
    return slice(address, sizeof(T)).template load<T>(0);
  }
  void put_bytes(GuestAddress address, std::span<const std::byte> bytes) {
    slice(address, bytes.size()).write(0, bytes);
  }
  [[nodiscard]] std::vector<std::byte> bytes(GuestAddress address, std::size_t length) const {
    std::vector<std::byte> copy(length);
    slice(address, length).read(0, copy);
    return copy;
  }
  // All of the first range, to compare before and after.
  [[nodiscard]] std::vector<std::byte> snapshot() const {
    return bytes(start(), static_cast<std::size_t>(memory_->mappings().front().range.size));
  }

 private:
  [[nodiscard]] GuestSlice slice(GuestAddress address, std::uint64_t length) const {
    auto found = memory_->slice(address, length);
    if (!found) {
      fail_test(found.error().message);
    }
    return *found;
  }
  void guard(std::byte* page) {
    void* mapped = ::mmap(page, kPage, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (mapped != MAP_FAILED) {
      guards_.push_back(mapped);
    }
  }

  std::unique_ptr<GuestMemory> memory_;
  std::vector<void*> guards_;
};

}  // namespace msb::virtio::testing
