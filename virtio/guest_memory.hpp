// SPDX-License-Identifier: Apache-2.0
// The only door to guest RAM. Every access goes through a GuestSlice, and a GuestSlice exists only
// for a range that was checked as a whole, so bounds are checked once and in one place.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "base/result.hpp"

namespace msb::virtio {

using GuestAddress = std::uint64_t;  // guest-physical

// A range proven to lie in one region of guest RAM. The guest can change the bytes at any moment,
// therefore they are only ever copied, discarded, handed to the kernel as an iovec, or loaded and
// stored atomically; no reference to them is given out. Offsets are within the slice; one beyond
// its end is a programming error and aborts. Valid as long as the GuestMemory it came from.
class GuestSlice {
 public:
  GuestSlice() = default;

  [[nodiscard]] std::size_t size() const { return bytes_.size(); }

  void read(std::size_t offset, std::span<std::byte> into) const {
    const auto from = bytes_.subspan(offset, into.size());
    if (!from.empty()) {  // an empty span may be a null pointer, which memcpy() must not get
      std::memcpy(into.data(), from.data(), from.size());
    }
  }
  void write(std::size_t offset, std::span<const std::byte> from) const {
    const auto into = bytes_.subspan(offset, from.size());
    if (!into.empty()) {
      std::memcpy(into.data(), from.data(), from.size());
    }
  }
  void fill(std::byte value) const {
    if (!bytes_.empty()) {
      std::memset(bytes_.data(), static_cast<int>(value), bytes_.size());
    }
  }

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] T load(std::size_t offset) const {
    T value;
    read(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void store(std::size_t offset, const T& value) const {
    write(offset, std::as_bytes(std::span(&value, 1)));
  }

  // For the indexes and flags of a ring; the address must be even.
  [[nodiscard]] std::uint16_t load_atomic(std::size_t offset, std::memory_order order) const {
    return atomic(offset).load(order);
  }
  void store_atomic(std::size_t offset, std::uint16_t value, std::memory_order order) const {
    atomic(offset).store(value, order);
  }

  // Gives the whole host pages inside the slice back to the host, and says how many bytes these
  // are: 0 when there are none, or the host refused. The guest finds zeros there, and what it
  // writes takes memory again. The rest of the slice, and what surrounds it, stays as it is.
  std::size_t discard() const;

  [[nodiscard]] GuestSlice subslice(std::size_t offset, std::size_t size) const {
    return GuestSlice(bytes_.subspan(offset, size));
  }
  // For system calls only.
  [[nodiscard]] iovec as_iovec() const { return {bytes_.data(), bytes_.size()}; }

 private:
  friend class GuestMemory;
  explicit GuestSlice(std::span<std::byte> bytes) : bytes_(bytes) {}
  [[nodiscard]] std::atomic_ref<std::uint16_t> atomic(std::size_t offset) const {
    return std::atomic_ref(
        *reinterpret_cast<std::uint16_t*>(bytes_.subspan(offset, sizeof(std::uint16_t)).data()));
  }

  std::span<std::byte> bytes_;
};

// Guest RAM: anonymous memory mapped at one or more guest-physical ranges. Owns the mappings. Not
// copyable; slices must not outlive it. Slicing is safe from any thread.
class GuestMemory {
 public:
  struct Range {
    GuestAddress start;
    std::uint64_t size;  // bytes, a multiple of the page size
  };

  // `ranges` ascending and disjoint. Fails when the host refuses the memory.
  static Result<std::unique_ptr<GuestMemory>> create(std::span<const Range> ranges);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  // Fails unless all of [address, address + length) lies in one range.
  [[nodiscard]] Result<GuestSlice> slice(GuestAddress address, std::uint64_t length) const;

  // For handing the memory to the hypervisor.
  struct Mapping {
    Range range;
    std::byte* host;
  };
  [[nodiscard]] std::span<const Mapping> mappings() const { return mappings_; }

 private:
  GuestMemory() = default;
  std::vector<Mapping> mappings_;
};

}  // namespace msb::virtio
