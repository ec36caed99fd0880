// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a device's side of a queue that the guest sets up, fills and changes at will.
// The input is steps: an Action's byte, then what the action takes. Each head goes back once,
// chains are what their descriptors say, and nothing is written but the used ring and what is
// writable (hostile-input.md 2 to 9, 35). Seeds: tests/corpus/virtio-queue.
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "virtio/queue.hpp"
#include "virtio/spec.hpp"
#include "virtio/testing/fuzz_input.hpp"
#include "virtio/testing/fuzz_ram.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio {
namespace {

using namespace testing;

enum class Action : std::uint8_t {
  kPop,
  kPush,           // which chain, bytes written (4 bytes)
  kDrop,           // which chain
  kTakeInterrupt,  //
  kPoke,           // by the guest: address, how many bytes, bytes
  kOffer,          // by the guest: how many descriptors; of each address, length (2 bytes), flags
  kJump,           // by the guest: where the available index is, from what was taken
  kWrite,          // which chain, offset (2 bytes), length
  kRead,           // which chain, offset (2 bytes), length
  kClose,
  kCreate,  // size, addresses of the parts, features
};
constexpr std::size_t kActions = 11;

// A chain that the device works on.
struct Held {
  DescriptorChain chain;
  std::optional<std::uint16_t> head;  // where it can be known
  unsigned queue;                     // which of those created one after the other
};

class World {
 public:
  World() {
    create({8, FuzzRam::kStart, FuzzRam::kStart + 0x200, FuzzRam::kStart + 0x300},
           Queue::kFeatures);
    require(queue_.has_value(), "a well-formed queue is taken");
  }

  void step(FuzzInput& input) {
    switch (static_cast<Action>(input.below(kActions))) {
      case Action::kPop:
        pop();
        break;
      case Action::kPush:
        if (auto held = take_held(input)) {
          give_back(std::move(*held), input.take<std::uint32_t>());
        }
        break;
      case Action::kDrop:
        if (auto held = take_held(input)) {
          give_back(std::move(*held), std::nullopt);
        }
        break;
      case Action::kTakeInterrupt:
        take_interrupt();
        break;
      case Action::kPoke: {
        const GuestAddress address = FuzzRam::take_address(input);
        memory_.poke(address, input.take_bytes(input.byte()));
        break;
      }
      case Action::kOffer:
        offer(input);
        break;
      case Action::kJump:
        memory_.poke(geometry_.available + kAvailableIndex,
                     static_cast<std::uint16_t>(taken_ + static_cast<std::int8_t>(input.byte())));
        break;
      case Action::kWrite:
        write(input);
        break;
      case Action::kRead:
        read(input);
        break;
      case Action::kClose:
        queue_->close();
        closed_ = true;
        break;
      case Action::kCreate:
        create(input);
        break;
    }
  }

 private:
  [[nodiscard]] GuestRam& ram() const { return memory_.ram(); }

  // Sizes of the three parts (2.7).
  static std::array<std::pair<GuestAddress, std::uint64_t>, 3> parts(const QueueGeometry& of) {
    const std::uint64_t size = of.size;
    return {{{of.descriptors, sizeof(Descriptor) * size},
             {of.available, kAvailableEntries + 2 * size + 2},
             {of.used, kUsedEntries + sizeof(UsedElement) * size + 2}}};
  }

  void create(FuzzInput& input) {
    const std::uint8_t size = input.byte();
    QueueGeometry geometry;
    // Mostly what a queue may have, and small: all of it is to be used.
    geometry.size =
        size < 0xe0 ? static_cast<std::uint16_t>(1U << size % 6) : input.take<std::uint16_t>();
    geometry.descriptors = FuzzRam::take_address(input);
    geometry.available = FuzzRam::take_address(input);
    geometry.used = FuzzRam::take_address(input);
    create(geometry, std::uint64_t{input.byte()} << 28);
  }

  void create(const QueueGeometry& geometry, std::uint64_t features) {
    auto queue = Queue::create(memory_.memory(), geometry, features);
    bool valid = std::has_single_bit(geometry.size) && geometry.descriptors % 16 == 0 &&
                 geometry.available % 2 == 0 && geometry.used % 4 == 0;
    for (const auto& [address, length] : parts(geometry)) {
      valid = valid && memory_.memory().slice(address, length).has_value();
    }
    require(queue.has_value() == valid, "only rings that lie in RAM as a whole make a queue");
    if (!valid) {
      return;
    }
    if (queue_) {
      queue_->close();
    }
    queue_ = std::move(*queue);
    ++created_;
    geometry_ = geometry;
    event_index_ = (features & kFeatureEventIndex) != 0;
    taken_ = returned_ = announced_ = 0;
    broken_ = closed_ = false;
    const auto [descriptors, available, used] = parts(geometry);
    const auto meet = [](const auto& one, const auto& other) {
      return one.first < other.first + other.second && other.first < one.first + one.second;
    };
    used_by_itself_ = !meet(used, descriptors) && !meet(used, available);
  }

  void offer(FuzzInput& input) {
    const std::size_t count = 1 + input.below(5);
    const auto at = [this](std::size_t i) {
      return static_cast<std::uint16_t>((next_descriptor_ + i) % geometry_.size);
    };
    for (std::size_t i = 0; i < count; ++i) {
      const GuestAddress address = FuzzRam::take_address(input);
      const auto length = input.take<std::uint16_t>();
      const std::uint8_t flags = input.byte();
      memory_.poke(
          geometry_.descriptors + at(i) * sizeof(Descriptor),
          Descriptor{address, length == 0xffff ? 0xffff'ffff : length,
                     static_cast<std::uint16_t>(flags ^ (i + 1 < count ? 1 : 0)), at(i + 1)});
    }
    const auto index = ram().get<std::uint16_t>(geometry_.available + kAvailableIndex);
    memory_.poke(
        geometry_.available + kAvailableEntries + std::uint64_t{2} * (index % geometry_.size),
        at(0));
    memory_.poke(geometry_.available + kAvailableIndex, static_cast<std::uint16_t>(index + 1));
    next_descriptor_ = at(count);
  }

  [[nodiscard]] std::uint16_t available_head(std::uint16_t number) const {
    return ram().get<std::uint16_t>(geometry_.available + kAvailableEntries +
                                    std::uint64_t{2} * (number % geometry_.size));
  }
  [[nodiscard]] std::uint16_t used_index() const {
    return ram().get<std::uint16_t>(geometry_.used + kUsedIndex);
  }
  // A head goes back once, as the next used element.
  void check_returned(std::uint16_t head, std::uint32_t written) {
    const auto element = ram().get<UsedElement>(geometry_.used + kUsedEntries +
                                                sizeof(UsedElement) * (returned_ % geometry_.size));
    require(element.id == head && element.length == written, "a head goes back as it came");
    ++returned_;
  }

  void pop() {
    if (used_by_itself_) {
      memory_.poke(geometry_.used + kUsedIndex, returned_);  // the guest may have changed it
    }
    MemoryWatch watch(memory_);
    auto chain = queue_->pop();
    watch.permit(geometry_.used, parts(geometry_)[2].second);
    watch.check("what pop() writes is the used ring");
    if (broken_ || closed_) {
      require(!chain.has_value(), "a queue that is broken or closed stays so");
      return;
    }
    broken_ = !chain.has_value();
    if (!used_by_itself_) {
      if (chain && *chain) {
        held_.push_back({std::move(**chain), std::nullopt, created_});
      }
      return;
    }
    require(used_index() == returned_, "nothing goes back by itself");
    if (!chain) {
      require(!chain.error().message.empty(), "what is wrong is said");
    } else if (!*chain) {
      const auto index = ram().get<std::uint16_t>(geometry_.available + kAvailableIndex);
      require(taken_ == index, "what is available is taken");
      require(!event_index_ || ram().get<std::uint16_t>(geometry_.used +
                                                        parts(geometry_)[2].second - 2) == taken_,
              "a device that found nothing asks for a kick");
    } else {
      const std::uint16_t head = available_head(taken_);
      ++taken_;
      check_chain(**chain, head);
      held_.push_back({std::move(**chain), head, created_});
      const auto in_flight = std::ranges::count(held_, created_, &Held::queue);
      require(in_flight <= geometry_.size, "no more is in flight than the queue has entries");
    }
  }

  // A chain's buffers are those of its descriptors as they lie in memory now, and each may be
  // written only where its descriptor says so.
  void check_chain(const DescriptorChain& chain, std::uint16_t head) {
    std::vector<iovec> readable;
    std::vector<iovec> writable;
    bool writes = false;
    GuestAddress table = geometry_.descriptors;
    std::uint16_t current = head;
    bool servable = true;
    for (std::uint32_t i = 0;; ++i) {
      require(i <= geometry_.size + 1U, "a chain is no longer than its queue");
      const auto descriptor =
          ram().get<Descriptor>(table + std::uint64_t{current} * sizeof(Descriptor));
      if ((descriptor.flags & kDescriptorIndirect) != 0) {
        if (!memory_.memory().slice(descriptor.address, descriptor.length)) {
          servable = false;
          break;
        }
        table = descriptor.address;
        current = 0;
        continue;
      }
      const auto slice = memory_.memory().slice(descriptor.address, descriptor.length);
      const bool writes_this = (descriptor.flags & kDescriptorWrite) != 0;
      servable &= slice.has_value() && (writes_this || !writes);
      writes |= writes_this;
      if (servable && descriptor.length > 0) {
        (writes ? writable : readable).push_back(slice->as_iovec());
      }
      if ((descriptor.flags & kDescriptorNext) == 0) {
        break;
      }
      current = descriptor.next;
    }
    require(chain.servable() == servable, "what can be served has its buffers in RAM and in order");
    if (!servable) {
      readable.clear();
      writable.clear();
    }
    const auto same = [](const std::vector<iovec>& one, const std::vector<iovec>& other) {
      return std::ranges::equal(one, other, [](const iovec& a, const iovec& b) {
        return a.iov_base == b.iov_base && a.iov_len == b.iov_len;
      });
    };
    require(same(chain.readable_iovecs(0, chain.readable_size()), readable) &&
                same(chain.writable_iovecs(0, chain.writable_size()), writable),
            "a chain's buffers are its descriptors'");
    require(
        size_of(readable) == chain.readable_size() && size_of(writable) == chain.writable_size(),
        "a chain's size is that of its buffers");
  }
  static std::size_t size_of(const std::vector<iovec>& pieces) {
    std::size_t size = 0;
    for (const iovec& piece : pieces) {
      size += piece.iov_len;
    }
    return size;
  }

  std::optional<Held> take_held(FuzzInput& input) {
    const std::size_t which = input.byte();
    if (held_.empty()) {
      return std::nullopt;
    }
    const auto found = held_.begin() + static_cast<std::ptrdiff_t>(which % held_.size());
    std::optional<Held> held(std::move(*found));
    held_.erase(found);
    return held;
  }
  const Held* look_at(FuzzInput& input) {
    const std::size_t which = input.byte();
    return held_.empty() ? nullptr : &held_[which % held_.size()];
  }

  // By push() with what was written, or else by its end.
  void give_back(Held held, std::optional<std::uint32_t> written) {
    const bool to_driver = held.queue == created_ && !closed_;
    MemoryWatch watch(memory_);
    if (written) {
      queue_->push(std::move(held.chain), *written);
    } else {
      const DescriptorChain dropped(std::move(held.chain));
    }
    if (to_driver && used_by_itself_) {
      watch.permit(geometry_.used + kUsedIndex, sizeof(std::uint16_t));
      watch.permit(
          geometry_.used + kUsedEntries + sizeof(UsedElement) * (returned_ % geometry_.size),
          sizeof(UsedElement));
      check_returned(held.head.value(), written.value_or(0));
      require(used_index() == returned_, "the used index says how many went back");
    } else if (to_driver) {
      watch.permit(geometry_.used, parts(geometry_)[2].second);
    }
    watch.check("what goes back is written to the used ring, and not once the queue is closed");
  }

  void take_interrupt() {
    MemoryWatch watch(memory_);
    const bool told = queue_->take_interrupt();
    watch.check("take_interrupt() writes nothing");
    if (used_by_itself_) {
      require(told == wants_interrupt(), "the driver is told when it wants to be");
      announced_ = returned_;
    }
  }
  // 2.7.7.2, number by number.
  [[nodiscard]] bool wants_interrupt() const {
    if (closed_ || announced_ == returned_) {
      return false;
    }
    if (!event_index_) {
      return (ram().get<std::uint16_t>(geometry_.available) & kAvailableNoInterrupt) == 0;
    }
    const auto event =
        ram().get<std::uint16_t>(geometry_.available + parts(geometry_)[1].second - 2);
    for (std::uint16_t number = announced_; number != returned_; ++number) {
      if (number == event) {
        return true;
      }
    }
    return false;
  }

  void write(FuzzInput& input) {
    const Held* held = look_at(input);
    const std::size_t offset = input.take<std::uint16_t>();
    const std::vector<std::byte> bytes(input.byte(), std::byte{0x5a});
    if (held == nullptr) {
      return;
    }
    MemoryWatch watch(memory_);
    const std::size_t written = held->chain.write(offset, bytes);
    const std::size_t room = held->chain.writable_size();
    require(written == std::min(bytes.size(), room - std::min(room, offset)),
            "as much is written as there is room for");
    for (const iovec& piece : held->chain.writable_iovecs(offset, bytes.size())) {
      watch.permit(piece);
    }
    watch.check("a chain is written where it is writable");
  }

  void read(FuzzInput& input) {
    const Held* held = look_at(input);
    const std::size_t offset = input.take<std::uint16_t>();
    std::vector<std::byte> bytes(input.byte());
    if (held == nullptr) {
      return;
    }
    const std::size_t got = held->chain.read(offset, bytes);
    std::vector<std::byte> expected;
    for (const iovec& piece : held->chain.readable_iovecs(offset, bytes.size())) {
      const auto* start = static_cast<const std::byte*>(piece.iov_base);
      expected.insert(expected.end(), start, start + piece.iov_len);
    }
    require(std::ranges::equal(std::span(bytes).first(got), expected),
            "a chain is read where it is readable");
  }

  FuzzRam memory_;
  std::optional<Queue> queue_;
  QueueGeometry geometry_;
  bool event_index_ = false;
  bool used_by_itself_ = true;  // the used ring overlaps no other part, so what is in them is known
  unsigned created_ = 0;
  std::uint16_t taken_ = 0;
  std::uint16_t returned_ = 0;
  std::uint16_t announced_ = 0;
  bool broken_ = false;
  bool closed_ = false;
  std::size_t next_descriptor_ = 0;
  std::vector<Held> held_;
};

}  // namespace
}  // namespace msb::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace msb::virtio;
  testing::FuzzInput input(data, size);
  World world;
  while (!input.empty()) {
    world.step(input);
  }
  return 0;
}
