// SPDX-License-Identifier: Apache-2.0
#include "virtio/queue.hpp"

#include <algorithm>
#include <bit>
#include <mutex>

namespace msb::virtio {

namespace detail {

struct QueueState {
  std::mutex mutex;  // of all that follows, and of the rings as far as the device writes them
  const GuestMemory* memory;
  std::uint16_t size;
  bool indirect;
  bool event_index;
  GuestSlice descriptors;
  GuestSlice available;
  GuestSlice used;
  std::uint16_t next_available = 0;
  std::uint16_t next_used = 0;
  std::uint16_t in_flight = 0;  // chains popped and not yet returned
  std::uint16_t announced = 0;  // next_used at the last take_interrupt()
  bool broken = false;
  bool closed = false;

  void give_back(std::uint16_t head, std::uint32_t written) {
    const std::scoped_lock lock(mutex);
    if (closed) {
      return;
    }
    add_used(head, written);
    publish_used();
  }

  // Both with the lock.
  void add_used(std::uint16_t head, std::uint32_t written) {
    --in_flight;
    const std::size_t slot = kUsedEntries + std::size_t{next_used} % size * sizeof(UsedElement);
    used.store(slot, UsedElement{head, written});
    ++next_used;
  }
  // 2.7.8.2: elements must be visible before the index.
  void publish_used() const { used.store_atomic(kUsedIndex, next_used, std::memory_order_release); }

  // 2.7.13.3: loads the available index; acquire, since entries and descriptors must be read after
  // the index that publishes them.
  std::uint16_t load_available() const {
    return available.load_atomic(kAvailableIndex, std::memory_order_acquire);
  }

  // What the driver published, looked at again once it knows that it has to kick for more (2.7.10):
  // what it published in between it may not kick for.
  std::uint16_t ask_for_kick() const {
    used.store_atomic(kUsedEntries + sizeof(UsedElement) * size, next_available,
                      std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return load_available();
  }

  Result<bool> walk(std::uint16_t head, std::vector<GuestSlice>& readable,
                    std::vector<GuestSlice>& writable) const;
};

}  // namespace detail

// Collects the buffers of the chain at `head`; false when it cannot be served. Fails where it is no
// chain.
Result<bool> detail::QueueState::walk(std::uint16_t head, std::vector<GuestSlice>& readable,
                                      std::vector<GuestSlice>& writable) const {
  GuestSlice table = descriptors;
  std::uint32_t entries = size;
  bool in_indirect_table = false;
  bool well_formed = true;
  std::uint16_t current = head;
  std::uint32_t count = 0;
  while (true) {
    // Copied once, then checked, then used: the guest may change it at any time.
    const auto descriptor = table.load<Descriptor>(std::size_t{current} * sizeof(Descriptor));
    const bool more = (descriptor.flags & kDescriptorNext) != 0;
    if ((descriptor.flags & kDescriptorIndirect) != 0) {
      // 2.7.5.3: at the end of a chain, once; its own write flag says nothing.
      if (!indirect || in_indirect_table || more) {
        return fail("descriptor {} is indirect, which {}", current,
                    !indirect           ? "was not negotiated"
                    : in_indirect_table ? "it must not be inside an indirect table"
                                        : "it must not be when another follows");
      }
      entries = descriptor.length / sizeof(Descriptor);
      if (entries == 0 || entries > size || descriptor.length % sizeof(Descriptor) != 0) {
        return fail("an indirect table of {} bytes is not one of 1 to {} descriptors",
                    descriptor.length, size);
      }
      auto slice = memory->slice(descriptor.address, descriptor.length);
      if (!slice) {
        return false;
      }
      table = *slice;
      in_indirect_table = true;
      current = 0;
      continue;
    }
    if (++count > size) {
      return fail("the chain at descriptor {} is longer than the queue", head);
    }
    auto slice = memory->slice(descriptor.address, descriptor.length);
    const bool writes = (descriptor.flags & kDescriptorWrite) != 0;
    if (!slice || (!writes && !writable.empty())) {
      well_formed = false;
    } else {
      (writes ? writable : readable).push_back(*slice);
    }
    if (!more) {
      return well_formed;
    }
    if (descriptor.next >= entries) {
      return fail("descriptor {} continues at {}, beyond the {}'s {}", current, descriptor.next,
                  in_indirect_table ? "indirect table" : "queue", entries);
    }
    current = descriptor.next;
  }
}

DescriptorChain& DescriptorChain::operator=(DescriptorChain&& other) noexcept {
  if (this != &other) {
    DescriptorChain old(std::move(*this));  // returns what this chain held
    queue_ = std::move(other.queue_);
    head_ = other.head_;
    servable_ = other.servable_;
    readable_ = std::move(other.readable_);
    writable_ = std::move(other.writable_);
    readable_size_ = other.readable_size_;
    writable_size_ = other.writable_size_;
  }
  return *this;
}

DescriptorChain::~DescriptorChain() {
  if (queue_ != nullptr) {
    queue_->give_back(head_, 0);
  }
}

namespace {

// Calls `visit` with each piece of [offset, offset + size) that `slices` hold, in order; gives the
// bytes covered.
template <typename Visit>
std::size_t for_each_piece(const std::vector<GuestSlice>& slices, std::size_t offset,
                           std::size_t size, Visit visit) {
  std::size_t done = 0;
  for (const GuestSlice& slice : slices) {
    if (done == size) {
      break;
    }
    if (offset >= slice.size()) {
      offset -= slice.size();
      continue;
    }
    const std::size_t piece = std::min(slice.size() - offset, size - done);
    visit(slice.subslice(offset, piece), done);
    done += piece;
    offset = 0;
  }
  return done;
}

void append_iovecs(const std::vector<GuestSlice>& slices, std::size_t offset, std::size_t size,
                   std::vector<iovec>& pieces) {
  for_each_piece(slices, offset, size,
                 [&](const GuestSlice& piece, std::size_t) { pieces.push_back(piece.as_iovec()); });
}

std::vector<iovec> iovecs_of(const std::vector<GuestSlice>& slices, std::size_t offset,
                             std::size_t size) {
  std::vector<iovec> pieces;
  pieces.reserve(slices.size());
  append_iovecs(slices, offset, size, pieces);
  return pieces;
}

std::size_t total_size(const std::vector<GuestSlice>& slices) {
  std::size_t size = 0;
  for (const GuestSlice& slice : slices) {
    size += slice.size();
  }
  return size;
}

}  // namespace

std::size_t DescriptorChain::read(std::size_t offset, std::span<std::byte> into) const {
  return for_each_piece(readable_, offset, into.size(),
                        [&](const GuestSlice& piece, std::size_t at) {
                          piece.read(0, into.subspan(at, piece.size()));
                        });
}

std::size_t DescriptorChain::write(std::size_t offset, std::span<const std::byte> from) const {
  return for_each_piece(writable_, offset, from.size(),
                        [&](const GuestSlice& piece, std::size_t at) {
                          piece.write(0, from.subspan(at, piece.size()));
                        });
}

std::vector<iovec> DescriptorChain::writable_iovecs(std::size_t offset, std::size_t size) const {
  return iovecs_of(writable_, offset, size);
}

std::vector<iovec> DescriptorChain::readable_iovecs(std::size_t offset, std::size_t size) const {
  return iovecs_of(readable_, offset, size);
}

void DescriptorChain::append_writable_iovecs(std::size_t offset, std::size_t size,
                                             std::vector<iovec>& pieces) const {
  append_iovecs(writable_, offset, size, pieces);
}

void DescriptorChain::append_readable_iovecs(std::size_t offset, std::size_t size,
                                             std::vector<iovec>& pieces) const {
  append_iovecs(readable_, offset, size, pieces);
}

std::size_t DescriptorChain::discard_writable() const {
  std::size_t discarded = 0;
  for (const GuestSlice& slice : writable_) {
    discarded += slice.discard();
  }
  return discarded;
}

Result<Queue> Queue::create(const GuestMemory& memory, const QueueGeometry& geometry,
                            std::uint64_t features) {
  const std::uint64_t size = geometry.size;
  if (size == 0 || size > kMaxQueueSize || !std::has_single_bit(size)) {
    return fail("queue size {} is not a power of two up to {}", size, kMaxQueueSize);
  }
  if (geometry.descriptors % kDescriptorTableAlignment != 0 ||
      geometry.available % kAvailableRingAlignment != 0 ||
      geometry.used % kUsedRingAlignment != 0) {
    return fail("a part of the queue at {:#x}, {:#x}, {:#x} is not aligned", geometry.descriptors,
                geometry.available, geometry.used);
  }
  // 2.7: sizes of the three parts, the event fields at the end of the rings included.
  auto descriptors = memory.slice(geometry.descriptors, size * sizeof(Descriptor));
  auto available = memory.slice(geometry.available, kAvailableEntries + 2 * size + 2);
  auto used = memory.slice(geometry.used, kUsedEntries + sizeof(UsedElement) * size + 2);
  for (const auto* part : {&descriptors, &available, &used}) {
    if (!*part) {
      return std::unexpected(part->error().within("queue"));
    }
  }
  auto state = std::make_shared<detail::QueueState>();
  state->memory = &memory;
  state->size = geometry.size;
  state->indirect = (features & kFeatureIndirectDescriptors) != 0;
  state->event_index = (features & kFeatureEventIndex) != 0;
  state->descriptors = *descriptors;
  state->available = *available;
  state->used = *used;
  return Queue(std::move(state));
}

std::uint16_t Queue::size() const {
  return state_->size;
}

Result<std::optional<DescriptorChain>> Queue::pop() {
  detail::QueueState& state = *state_;
  const std::scoped_lock lock(state.mutex);
  if (state.broken || state.closed) {
    return fail("the queue waits for a reset");
  }
  std::uint16_t index = state.load_available();
  if (index == state.next_available && state.event_index) {
    index = state.ask_for_kick();
  }
  if (index == state.next_available) {
    return std::optional<DescriptorChain>();
  }
  const auto waiting = static_cast<std::uint16_t>(index - state.next_available);
  if (waiting + state.in_flight > state.size) {
    state.broken = true;
    return fail("the available index jumped to {} with {} chains in flight", index,
                state.in_flight);
  }
  const std::size_t slot =
      kAvailableEntries + std::size_t{state.next_available} % state.size * sizeof(std::uint16_t);
  const std::uint16_t head = state.available.load_atomic(slot, std::memory_order_relaxed);
  if (head >= state.size) {
    state.broken = true;
    return fail("available head {} is beyond the queue's {} descriptors", head, state.size);
  }
  ++state.next_available;

  DescriptorChain chain;
  chain.head_ = head;
  const auto well_formed = state.walk(head, chain.readable_, chain.writable_);
  if (!well_formed) {
    state.broken = true;
    return std::unexpected(well_formed.error());
  }
  chain.queue_ = state_;
  ++state.in_flight;
  chain.servable_ = *well_formed;
  if (!chain.servable_) {
    chain.readable_.clear();
    chain.writable_.clear();
  }
  chain.readable_size_ = total_size(chain.readable_);
  chain.writable_size_ = total_size(chain.writable_);
  return std::optional(std::move(chain));
}

void Queue::push(DescriptorChain&& chain, std::uint32_t written) {
  if (const auto state = std::exchange(chain.queue_, nullptr)) {
    state->give_back(chain.head_, written);
  }
}

void Queue::push_together(std::span<Written> chains) {
  const std::scoped_lock lock(state_->mutex);
  for (Written& each : chains) {
    if (std::exchange(each.chain.queue_, nullptr) != nullptr && !state_->closed) {
      state_->add_used(each.chain.head_, each.bytes);
    }
  }
  if (!state_->closed) {
    state_->publish_used();
  }
}

bool Queue::take_interrupt() {
  detail::QueueState& state = *state_;
  const std::scoped_lock lock(state.mutex);
  const std::uint16_t before = std::exchange(state.announced, state.next_used);
  if (before == state.next_used || state.closed) {
    return false;
  }
  // 2.7.7.2: what the driver wants must be read after the used index was written, or an interrupt
  // could be lost.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!state.event_index) {
    const std::uint16_t flags =
        state.available.load_atomic(kAvailableFlags, std::memory_order_relaxed);
    return (flags & kAvailableNoInterrupt) == 0;
  }
  const std::uint16_t event = state.available.load_atomic(
      kAvailableEntries + std::size_t{2} * state.size, std::memory_order_relaxed);
  return event_passed(event, before, state.next_used);
}

void Queue::close() {
  const std::scoped_lock lock(state_->mutex);
  state_->closed = true;
}

}  // namespace msb::virtio
