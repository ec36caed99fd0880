// SPDX-License-Identifier: Apache-2.0
// Every small world: all rings of 1, 2 and 4 entries over small alphabets of field values
// (hostile-input.md 3, 4, 5, 7, 8, 9). A full table would be billions of cases, therefore a field
// takes each of its values only once the walk of the specification comes by it; fields that it does
// not come by hold the worst values there are, so that a queue that looks at them answers
// differently from the model.
#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "virtio/queue.hpp"
#include "virtio/spec.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/guest_ram.hpp"

namespace msb::virtio {
namespace {

using testing::DriverQueue;
using testing::GuestRam;
using testing::kPage;

constexpr GuestAddress kBase = GuestRam::kStart;
constexpr GuestAddress kData = GuestRam::kStart + kPage;
constexpr GuestAddress kTable = GuestRam::kStart + kPage + kPage / 2;  // the indirect one
constexpr GuestAddress kEnd = GuestRam::kStart + 2 * kPage;
constexpr std::size_t kTableSize = 4;  // entries there is room for

// Enumerates all sequences of decisions, depth first: run a case, then advance().
class Decisions {
 public:
  std::size_t pick(std::size_t alternatives) {
    if (next_ == taken_.size()) {
      taken_.push_back({0, alternatives});
    }
    return taken_[next_++].value;
  }
  bool advance() {
    next_ = 0;
    while (!taken_.empty() && ++taken_.back().value == taken_.back().alternatives) {
      taken_.pop_back();
    }
    return !taken_.empty();
  }

 private:
  struct Decision {
    std::size_t value;
    std::size_t alternatives;
  };
  std::vector<Decision> taken_;
  std::size_t next_ = 0;
};

struct BufferKind {
  GuestAddress address;
  std::uint32_t length;
  bool in_ram;
};
constexpr BufferKind kGood{kData, 16, true};
constexpr BufferKind kEmptyAtEnd{kEnd, 0, true};
constexpr BufferKind kOverEnd{kEnd - 8, 16, false};
constexpr BufferKind kWraps{~GuestAddress{0} - 7, 16, false};

// What an indirect descriptor may name; all that are in RAM begin at the same place.
struct TableKind {
  GuestAddress address;
  std::uint32_t length;
};

struct Alphabet {
  std::span<const std::uint16_t> index_steps;  // by how much the available index moves
  std::span<const BufferKind> buffers;
  std::span<const TableKind> tables;  // none: indirect descriptors are not negotiated
  std::span<const std::uint16_t> flags;
  std::span<const std::uint16_t> out_of_range;  // besides the valid ones, for heads and next
  int phases;                                   // how often the index moves
  bool every_policy;                            // else the policies take turns
};

// What becomes of the chains that the queue gives.
enum class Policy { kPushAtOnce, kPushInReverse, kDropAtEnd };
constexpr std::size_t kPolicies = 3;

class SmallWorld {
 public:
  SmallWorld(std::uint16_t size, const Alphabet& alphabet)
      : size_(size), alphabet_(alphabet), driver_(ram_, kBase, size) {}

  // Runs all cases; gives how many there were.
  std::size_t run() {
    std::size_t cases = 0;
    do {
      run_case(cases);
      ++cases;
    } while (decisions_.advance());
    return cases;
  }

 private:
  struct Expected {
    std::uint16_t head;
    std::size_t readable;
    std::size_t writable;
  };

  void run_case(std::size_t number) {
    poison();
    known_heads_ = 0;
    known_descriptors_ = 0;
    known_entries_ = 0;
    consumed_ = 0;
    index_ = 0;
    const auto policy = static_cast<Policy>(alphabet_.every_policy ? decisions_.pick(kPolicies)
                                                                   : number % kPolicies);
    auto queue = Queue::create(ram_.memory(), driver_.geometry(),
                               alphabet_.tables.empty() ? 0 : kFeatureIndirectDescriptors);
    if (!queue) {
      FAIL("the queue could not be created");
    }
    std::vector<UsedElement> returned;
    for (int phase = 0; phase < alphabet_.phases; ++phase) {
      index_ = static_cast<std::uint16_t>(
          index_ + alphabet_.index_steps[decisions_.pick(alphabet_.index_steps.size())]);
      store(available_ + kAvailableIndex, index_);
      if (!run_phase(*queue, policy, returned)) {
        break;
      }
    }
  }

  // The driver moved the index: lets model and queue work it off. False when the ring is broken.
  bool run_phase(Queue& queue, Policy policy, std::vector<UsedElement>& returned) {
    std::vector<DescriptorChain> held;
    std::vector<Expected> held_expected;
    bool broken = false;
    // One more turn than there can be chains: a queue that gives more is a defect.
    for (int turn = 0;; ++turn) {
      if (turn > 2 * size_ + 1) {
        FAIL("the queue does not come to an end");
      }
      const std::optional<Expected> expected = model_pop(held.size(), broken);
      const std::array<std::byte, 256> before = driver_part();
      auto chain = queue.pop();
      if (before != driver_part()) {
        FAIL("the queue wrote into what belongs to the driver");
      }
      if (chain.has_value() == broken) {
        FAIL("broken as the model says: ", broken, ", as the queue says: ", !chain.has_value());
      }
      if (broken) {
        break;
      }
      if (chain->has_value() != expected.has_value()) {
        FAIL("a chain as the model says: ", expected.has_value(),
             ", as the queue says: ", chain->has_value());
      }
      if (!expected) {
        break;
      }
      if ((*chain)->readable_size() != expected->readable ||
          (*chain)->writable_size() != expected->writable) {
        FAIL("the chain at ", expected->head, " has the wrong size");
      }
      if (policy == Policy::kPushAtOnce) {
        queue.push(std::move(**chain), 7);
        returned.push_back({expected->head, 7});
      } else {
        held.push_back(std::move(**chain));
        held_expected.push_back(*expected);
      }
    }
    while (!held.empty()) {
      const std::size_t which = policy == Policy::kPushInReverse ? held.size() - 1 : 0;
      const std::uint32_t written = policy == Policy::kPushInReverse ? 9 : 0;
      if (policy == Policy::kPushInReverse) {
        queue.push(std::move(held[which]), written);
      }
      returned.push_back({held_expected[which].head, written});
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
      held_expected.erase(held_expected.begin() + static_cast<std::ptrdiff_t>(which));
    }
    check_used(returned);
    return !broken;
  }

  // 2.7.13 and 2.7.5 as the specification has them; decides the fields that it comes by.
  std::optional<Expected> model_pop(std::size_t in_flight, bool& broken) {
    const std::uint16_t index = index_;
    if (consumed_ != index) {
      if (static_cast<std::uint16_t>(index - consumed_) + in_flight > size_) {
        broken = true;
        return std::nullopt;
      }
      const std::uint16_t head = decide_head(consumed_ % size_);
      if (head >= size_) {
        broken = true;
        return std::nullopt;
      }
      ++consumed_;
      Expected chain{head, 0, 0};
      bool served = true;
      bool writable_seen = false;
      std::uint16_t current = head;
      std::optional<std::uint32_t> table;  // entries of the indirect one, once in it
      for (int length = 0;;) {
        const auto [descriptor, in_ram] = decide_descriptor(current, table.has_value());
        if ((descriptor.flags & kDescriptorIndirect) != 0) {
          const std::uint32_t entries = descriptor.length / sizeof(Descriptor);
          if (alphabet_.tables.empty() || table || (descriptor.flags & kDescriptorNext) != 0 ||
              entries == 0 || entries > size_ || descriptor.length % sizeof(Descriptor) != 0) {
            broken = true;
            return std::nullopt;
          }
          if (!in_ram) {
            served = false;
            break;
          }
          table = entries;
          current = 0;
          continue;
        }
        if (++length > size_) {
          broken = true;
          return std::nullopt;
        }
        const bool writable = (descriptor.flags & kDescriptorWrite) != 0;
        served = served && in_ram && (writable || !writable_seen);
        writable_seen = writable_seen || writable;
        (writable ? chain.writable : chain.readable) += descriptor.length;
        if ((descriptor.flags & kDescriptorNext) == 0) {
          break;
        }
        if (descriptor.next >= table.value_or(size_)) {
          broken = true;
          return std::nullopt;
        }
        current = descriptor.next;
      }
      if (!served) {
        chain = {head, 0, 0};
      }
      return chain;
    }
    return std::nullopt;
  }

  std::uint16_t pick_position() {
    const std::size_t choice = decisions_.pick(size_ + alphabet_.out_of_range.size());
    return choice < size_ ? static_cast<std::uint16_t>(choice)
                          : alphabet_.out_of_range[choice - size_];
  }

  std::uint16_t decide_head(std::size_t slot) {
    const std::size_t offset = available_ + kAvailableEntries + 2 * slot;
    if ((known_heads_ >> slot & 1U) == 0) {
      known_heads_ |= 1U << slot;
      store(offset, pick_position());
    }
    return load<std::uint16_t>(offset);
  }

  struct Decided {
    Descriptor descriptor;
    bool in_ram;  // what it names
  };
  // Of the queue's table, or of the indirect one.
  Decided decide_descriptor(std::size_t position, bool in_table) {
    const std::size_t offset = (in_table ? kTable - kBase : 0) + position * sizeof(Descriptor);
    std::uint32_t& known = in_table ? known_entries_ : known_descriptors_;
    auto& in_ram = in_table ? entry_in_ram_ : in_ram_;
    if ((known >> position & 1U) == 0) {
      known |= 1U << position;
      Descriptor descriptor{0, 0, 0, 0xffff};
      descriptor.flags = alphabet_.flags[decisions_.pick(alphabet_.flags.size())];
      if ((descriptor.flags & kDescriptorIndirect) != 0 && !in_table && !alphabet_.tables.empty()) {
        const TableKind& kind = alphabet_.tables[decisions_.pick(alphabet_.tables.size())];
        descriptor.address = kind.address;
        descriptor.length = kind.length;
        in_ram[position] = kind.address == kTable;
      } else {
        const BufferKind& buffer = alphabet_.buffers[decisions_.pick(alphabet_.buffers.size())];
        descriptor.address = buffer.address;
        descriptor.length = buffer.length;
        in_ram[position] = buffer.in_ram;
        if ((descriptor.flags & kDescriptorNext) != 0 &&
            (descriptor.flags & kDescriptorIndirect) == 0) {
          descriptor.next = pick_position();
        }
      }
      store(offset, descriptor);
    }
    return {load<Descriptor>(offset), in_ram[position]};
  }

  void check_used(const std::vector<UsedElement>& returned) {
    const auto index = load<std::uint16_t>(used_ + kUsedIndex);
    if (index != returned.size()) {
      FAIL("chains to be returned: ", returned.size(), ", returned: ", index);
    }
    const std::size_t first = returned.size() > size_ ? returned.size() - size_ : 0;
    for (std::size_t i = first; i < returned.size(); ++i) {
      const auto element =
          load<UsedElement>(used_ + kUsedEntries + sizeof(UsedElement) * (i % size_));
      if (element.id != returned[i].id || element.length != returned[i].length) {
        FAIL("return ", i, " was of ", element.id, " with ", element.length, " bytes instead of ",
             returned[i].id, " with ", returned[i].length);
      }
    }
  }

  void poison() {
    for (std::size_t i = 0; i < size_; ++i) {
      store(i * sizeof(Descriptor), Descriptor{~GuestAddress{0}, 0xffff'ffff, 0xffff, 0xffff});
      store(available_ + kAvailableEntries + 2 * i, std::uint16_t{0xffff});
    }
    for (std::size_t i = 0; i < kTableSize; ++i) {
      store(kTable - kBase + i * sizeof(Descriptor),
            Descriptor{~GuestAddress{0}, 0xffff'ffff, 0xffff, 0xffff});
    }
    store(available_ + kAvailableIndex, std::uint16_t{0});
    store(used_ + kUsedIndex, std::uint16_t{0});
  }

  template <typename T>
  void store(std::size_t offset, const T& value) {
    std::memcpy(host_ + offset, &value, sizeof value);
  }
  template <typename T>
  T load(std::size_t offset) const {
    T value;
    std::memcpy(&value, host_ + offset, sizeof value);
    return value;
  }
  std::array<std::byte, 256> driver_part() const {
    std::array<std::byte, 256> part{};
    std::memcpy(part.data(), host_, used_);
    return part;
  }

  const std::uint16_t size_;
  const Alphabet& alphabet_;
  GuestRam ram_{2 * kPage};
  DriverQueue driver_;
  std::byte* host_ = ram_.memory().mappings().front().host;
  const std::size_t available_ = driver_.geometry().available - kBase;
  const std::size_t used_ = driver_.geometry().used - kBase;

  Decisions decisions_;
  std::uint32_t known_heads_ = 0;
  std::uint32_t known_descriptors_ = 0;
  std::uint32_t known_entries_ = 0;  // of the indirect table
  std::array<bool, 4> in_ram_{};
  std::array<bool, kTableSize> entry_in_ram_{};
  std::uint16_t consumed_ = 0;
  std::uint16_t index_ = 0;
};

constexpr std::array kAllBuffers{kGood, kEmptyAtEnd, kOverEnd, kWraps};
constexpr std::array kGoodAndBad{kGood, kOverEnd};
constexpr std::array kOnlyGood{kGood};
constexpr std::uint16_t kNextWrite = kDescriptorNext | kDescriptorWrite;
constexpr std::uint16_t kNextIndirect = kDescriptorNext | kDescriptorIndirect;
constexpr std::array<std::uint16_t, 6> kAllFlags{0,          kDescriptorNext,     kDescriptorWrite,
                                                 kNextWrite, kDescriptorIndirect, kNextIndirect};
constexpr std::array<std::uint16_t, 5> kMostFlags{0, kDescriptorNext, kDescriptorWrite, kNextWrite,
                                                  kDescriptorIndirect};
constexpr std::array<std::uint16_t, 3> kFewFlags{kDescriptorNext, kDescriptorWrite, kNextWrite};

constexpr std::array kTables{TableKind{kTable, 16}, TableKind{kTable, 32}, TableKind{kTable, 0},
                             TableKind{kTable, 24}, TableKind{kEnd - 8, 16}};
constexpr std::array kGoodTables{TableKind{kTable, 16}, TableKind{kTable, 32},
                                 TableKind{kTable, 64}};

TEST_CASE("every small ring of 1 entry is answered as the specification says") {
  constexpr std::array<std::uint16_t, 5> kSteps{0, 1, 2, 0x8000, 0xffff};
  constexpr std::array<std::uint16_t, 2> kBeyond{1, 0xffff};
  const Alphabet alphabet{kSteps, kAllBuffers, {}, kAllFlags, kBeyond, 3, true};
  MESSAGE(SmallWorld(1, alphabet).run(), " cases");
}

TEST_CASE("every small ring of 2 entries is answered as the specification says") {
  constexpr std::array<std::uint16_t, 6> kSteps{0, 1, 2, 3, 0x8000, 0xffff};
  constexpr std::array<std::uint16_t, 2> kBeyond{2, 0xffff};
  const Alphabet alphabet{kSteps, kAllBuffers, {}, kAllFlags, kBeyond, 2, false};
  MESSAGE(SmallWorld(2, alphabet).run(), " cases");
}

TEST_CASE(
    "every small ring of 4 entries with up to 2 chains is answered as the specification says") {
  constexpr std::array<std::uint16_t, 6> kSteps{0, 1, 2, 5, 0x8000, 0xffff};
  constexpr std::array<std::uint16_t, 1> kBeyond{4};
  const Alphabet alphabet{kSteps, kGoodAndBad, {}, kMostFlags, kBeyond, 1, false};
  MESSAGE(SmallWorld(4, alphabet).run(), " cases");
}

TEST_CASE(
    "every small ring of 4 entries with 4 chains in 2 batches is answered as the specification "
    "says") {
  constexpr std::array<std::uint16_t, 1> kSteps{2};
  const Alphabet alphabet{kSteps, kOnlyGood, {}, kFewFlags, {}, 2, false};
  MESSAGE(SmallWorld(4, alphabet).run(), " cases");
}

TEST_CASE(
    "every small ring of 1 entry with an indirect table is answered as the specification says") {
  constexpr std::array<std::uint16_t, 3> kSteps{0, 1, 2};
  constexpr std::array<std::uint16_t, 1> kBeyond{1};
  const Alphabet alphabet{kSteps, kAllBuffers, kTables, kAllFlags, kBeyond, 2, true};
  MESSAGE(SmallWorld(1, alphabet).run(), " cases");
}

TEST_CASE(
    "every small ring of 2 entries with an indirect table is answered as the specification says") {
  constexpr std::array<std::uint16_t, 2> kSteps{1, 2};
  constexpr std::array<std::uint16_t, 1> kBeyond{2};
  const Alphabet alphabet{kSteps, kGoodAndBad, kTables, kAllFlags, kBeyond, 1, false};
  MESSAGE(SmallWorld(2, alphabet).run(), " cases");
}

TEST_CASE(
    "every chain of a small ring of 4 entries with an indirect table is answered as the "
    "specification says") {
  constexpr std::array<std::uint16_t, 1> kSteps{1};
  constexpr std::array<std::uint16_t, 1> kBeyond{4};
  const Alphabet alphabet{kSteps, kOnlyGood, kGoodTables, kMostFlags, kBeyond, 1, false};
  MESSAGE(SmallWorld(4, alphabet).run(), " cases");
}

}  // namespace
}  // namespace msb::virtio
