// SPDX-License-Identifier: Apache-2.0
// The split virtqueue (virtio 1.2 section 2.7), device side.
//
//   Queue queue = ...;                             // from the transport, at DRIVER_OK
//   while (true) {
//     auto chain = queue.pop();                    // Result<optional<DescriptorChain>>
//     if (!chain) -> the driver broke the ring: needs reset
//     if (!*chain) break;                          // nothing more is available
//     (*chain)->read(0, header); ...               // copies, never references
//     queue.push(std::move(**chain), written);     // returns the head to the driver
//   }
//   if (queue.take_interrupt()) -> one interrupt for the whole batch
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "virtio/guest_memory.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

// What the driver wrote into the queue's registers.
struct QueueGeometry {
  std::uint16_t size = 0;  // entries
  GuestAddress descriptors = 0;
  GuestAddress available = 0;
  GuestAddress used = 0;
};

// Whether an index that moved from `before` to `now` has passed `event`, all modulo 2^16: whether
// the entry with number `event` is one of those added in between (2.7.7.2, 2.7.10.1).
constexpr bool event_passed(std::uint16_t event, std::uint16_t before, std::uint16_t now) {
  return static_cast<std::uint16_t>(now - event - 1) < static_cast<std::uint16_t>(now - before);
}

namespace detail {
struct QueueState;
}

// The buffers of one request: readable ones first, then writable ones, each proven to lie in guest
// memory. Move-only. Its head goes back to the used ring exactly once: by Queue::push(), or with
// length 0 when it is destroyed, or not at all when the queue was reset meanwhile.
class DescriptorChain {
 public:
  DescriptorChain(DescriptorChain&&) noexcept = default;
  DescriptorChain& operator=(DescriptorChain&& other) noexcept;
  ~DescriptorChain();

  // Whether it could be one that a driver means: see Queue::pop(). Others have no buffers.
  [[nodiscard]] bool servable() const { return servable_; }
  [[nodiscard]] std::size_t readable_size() const { return readable_size_; }  // bytes
  [[nodiscard]] std::size_t writable_size() const { return writable_size_; }  // bytes

  // Copies from the readable bytes at `offset` on; gives how many there were, at most into.size().
  std::size_t read(std::size_t offset, std::span<std::byte> into) const;
  // Copies into the writable bytes at `offset` on; gives how many fitted.
  std::size_t write(std::size_t offset, std::span<const std::byte> from) const;
  // The writable bytes [offset, offset + size), for a system call; shorter when the chain is.
  [[nodiscard]] std::vector<iovec> writable_iovecs(std::size_t offset, std::size_t size) const;
  // Likewise of the readable bytes; to be read from only.
  [[nodiscard]] std::vector<iovec> readable_iovecs(std::size_t offset, std::size_t size) const;
  // Likewise, added to `pieces`.
  void append_writable_iovecs(std::size_t offset, std::size_t size,
                              std::vector<iovec>& pieces) const;
  void append_readable_iovecs(std::size_t offset, std::size_t size,
                              std::vector<iovec>& pieces) const;
  // GuestSlice::discard() for each writable buffer; gives the sum of bytes.
  std::size_t discard_writable() const;

 private:
  friend class Queue;
  DescriptorChain() = default;

  std::shared_ptr<detail::QueueState> queue_;  // empty once returned
  std::uint16_t head_ = 0;
  bool servable_ = true;
  std::vector<GuestSlice> readable_;
  std::vector<GuestSlice> writable_;
  std::size_t readable_size_ = 0;
  std::size_t writable_size_ = 0;
};

// One activated queue. Calls on several threads exclude each other. Copies share the same queue.
class Queue {
 public:
  // What every queue can do, for the transport to offer: indirect descriptors (2.7.5.3) and event
  // indexes (2.7.7, 2.7.10).
  static constexpr std::uint64_t kFeatures = kFeatureIndirectDescriptors | kFeatureEventIndex;

  // Checks size (a power of two, at most 32768), alignment and that all three parts lie in guest
  // memory. `features`: what the driver accepted, of which kFeatures matter. `memory` must outlive
  // the queue and its chains.
  static Result<Queue> create(const GuestMemory& memory, const QueueGeometry& geometry,
                              std::uint64_t features);

  [[nodiscard]] std::uint16_t size() const;  // entries

  // The next available chain, or nothing when the driver made none available. A chain that is
  // well-formed as a list but names memory that is not guest RAM, or has a readable buffer after a
  // writable one, is not servable() and comes without buffers: it is to be returned, which takes a
  // turn like any other. Fails for good when the driver broke the ring
  // itself: an index out of range, a loop, a jump of the available index, more chains in flight
  // than entries, an indirect table that cannot be one.
  //
  // A kick for a chain made available later is certain only once this gave nothing.
  Result<std::optional<DescriptorChain>> pop();

  // Returns a chain with the number of bytes written into it.
  void push(DescriptorChain&& chain, std::uint32_t written);
  // Returns several of this queue, of which the driver sees all or none.
  struct Written {
    DescriptorChain chain;
    std::uint32_t bytes;
  };
  void push_together(std::span<Written> chains);

  // Whether chains were returned since the last call and the driver wants to be interrupted for
  // them.
  [[nodiscard]] bool take_interrupt();

  // Forgets the driver's rings: chains that are still in flight will not be returned.
  void close();

 private:
  explicit Queue(std::shared_ptr<detail::QueueState> state) : state_(std::move(state)) {}
  std::shared_ptr<detail::QueueState> state_;
};

}  // namespace msb::virtio
