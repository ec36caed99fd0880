// SPDX-License-Identifier: Apache-2.0
// The driver's side of a split virtqueue (virtio 1.2 section 2.7), well-behaved unless told
// otherwise.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "virtio/queue.hpp"
#include "virtio/spec.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio::testing {

struct Buffer {
  GuestAddress address;
  std::uint32_t length;
  bool writable;
};

class DriverQueue {
 public:
  // The three parts follow each other from `base` on.
  DriverQueue(GuestRam& ram, GuestAddress base, std::uint16_t size) : ram_(ram) {
    geometry_.size = size;
    geometry_.descriptors = base;
    geometry_.available = base + size * sizeof(Descriptor);
    geometry_.used = (geometry_.available + kAvailableEntries + 2U * size + 2 + 3) / 4 * 4;
    for (std::uint16_t i = 0; i < size; ++i) {
      free_.push_back(static_cast<std::uint16_t>(size - 1 - i));
    }
  }

  [[nodiscard]] const QueueGeometry& geometry() const { return geometry_; }
  [[nodiscard]] GuestAddress end() const {
    return geometry_.used + kUsedEntries + sizeof(UsedElement) * geometry_.size + 2;
  }
  [[nodiscard]] std::size_t free() const { return free_.size(); }
  [[nodiscard]] Queue device_side(std::uint64_t features = 0) const {
    auto queue = Queue::create(ram_.memory(), geometry_, features);
    require(queue.has_value(), "the device takes a well-formed queue");
    return *queue;
  }
  // Forgets everything, as a driver does that resets its device.
  void restart() {
    *this = DriverQueue(ram_, geometry_.descriptors, geometry_.size);
    set_available_index(0);
    ram_.put(geometry_.used + kUsedIndex, std::uint16_t{0});
  }
  DriverQueue(const DriverQueue&) = default;
  DriverQueue& operator=(const DriverQueue& other) {
    geometry_ = other.geometry_;
    free_ = other.free_;
    available_ = other.available_;
    seen_ = other.seen_;
    return *this;
  }

  // Chains `buffers` and makes them available; gives the head.
  std::uint16_t add(std::span<const Buffer> buffers) {
    if (buffers.empty() || buffers.size() > free_.size()) {
      fail_test(
          fmt::format("no chain of {} with {} free descriptors", buffers.size(), free_.size()));
    }
    std::uint16_t next = 0;
    for (std::size_t i = buffers.size(); i-- > 0;) {
      const std::uint16_t index = free_.back();
      free_.pop_back();
      std::uint16_t flags = buffers[i].writable ? kDescriptorWrite : std::uint16_t{0};
      if (i + 1 < buffers.size()) {
        flags = static_cast<std::uint16_t>(flags | kDescriptorNext);
      }
      set_descriptor(index, {buffers[i].address, buffers[i].length, flags, next});
      next = index;
    }
    offer(next);
    return next;
  }
  std::uint16_t add(std::initializer_list<Buffer> buffers) {
    return add(std::span(buffers.begin(), buffers.size()));
  }

  // Puts `buffers` into an indirect table at `table` and makes that available; gives the head.
  std::uint16_t add_indirect(GuestAddress table, std::span<const Buffer> buffers) {
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      const auto flags = static_cast<std::uint16_t>((buffers[i].writable ? kDescriptorWrite : 0) |
                                                    (last ? 0 : kDescriptorNext));
      ram_.put(table + i * sizeof(Descriptor),
               Descriptor{buffers[i].address, buffers[i].length, flags,
                          static_cast<std::uint16_t>(last ? 0xffff : i + 1)});
    }
    const std::uint16_t index = free_.back();
    free_.pop_back();
    set_descriptor(index, {table, static_cast<std::uint32_t>(buffers.size() * sizeof(Descriptor)),
                           kDescriptorIndirect, 0xffff});
    offer(index);
    return index;
  }
  std::uint16_t add_indirect(GuestAddress table, std::initializer_list<Buffer> buffers) {
    return add_indirect(table, std::span(buffers.begin(), buffers.size()));
  }

  void set_descriptor(std::uint16_t index, const Descriptor& descriptor) {
    ram_.put(geometry_.descriptors + index * sizeof(Descriptor), descriptor);
  }
  // Makes `head` available, whatever it is.
  void offer(std::uint16_t head) {
    ram_.put(geometry_.available + kAvailableEntries + 2U * (available_ % geometry_.size), head);
    set_available_index(static_cast<std::uint16_t>(available_ + 1));
  }
  void set_available_index(std::uint16_t index) {
    available_ = index;
    ram_.put(geometry_.available + kAvailableIndex, index);
  }
  [[nodiscard]] std::uint16_t available_index() const { return available_; }
  // 2.7.7.2, 2.7.10.1: which used and which available entry either side wants to hear of.
  void set_used_event(std::uint16_t index) {
    ram_.put(geometry_.available + kAvailableEntries + 2U * geometry_.size, index);
  }
  [[nodiscard]] std::uint16_t available_event() const {
    return ram_.get<std::uint16_t>(geometry_.used + kUsedEntries +
                                   sizeof(UsedElement) * geometry_.size);
  }
  void set_flags(std::uint16_t flags) { ram_.put(geometry_.available + kAvailableFlags, flags); }

  [[nodiscard]] std::uint16_t used_index() const {
    // The device may add elements on another thread.
    const auto index = ram_.memory().slice(geometry_.used + kUsedIndex, sizeof(std::uint16_t));
    return index->load_atomic(0, std::memory_order_acquire);
  }
  // The next returned element, not looked at before; its descriptors are free again.
  std::optional<UsedElement> take_used() {
    if (seen_ == used_index()) {
      return std::nullopt;
    }
    const auto element = ram_.get<UsedElement>(geometry_.used + kUsedEntries +
                                               sizeof(UsedElement) * (seen_ % geometry_.size));
    ++seen_;
    if (element.id >= geometry_.size) {
      fail_test(fmt::format("used element {} is no descriptor", element.id));
    }
    auto index = static_cast<std::uint16_t>(element.id);
    while (free_.size() < geometry_.size) {
      free_.push_back(index);
      const auto descriptor =
          ram_.get<Descriptor>(geometry_.descriptors + index * sizeof(Descriptor));
      if ((descriptor.flags & kDescriptorNext) == 0 || descriptor.next >= geometry_.size) {
        break;
      }
      index = descriptor.next;
    }
    return element;
  }

 private:
  GuestRam& ram_;
  QueueGeometry geometry_;
  std::vector<std::uint16_t> free_;
  std::uint16_t available_ = 0;
  std::uint16_t seen_ = 0;
};

}  // namespace msb::virtio::testing
