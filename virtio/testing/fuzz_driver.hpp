// SPDX-License-Identifier: Apache-2.0
// What every fuzz target of a device shares: a backend that answers as an input says, and a guest
// that does as it says.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "virtio/device.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/fake_io.hpp"
#include "virtio/testing/fuzz_input.hpp"
#include "virtio/testing/fuzz_ram.hpp"
#include "virtio/testing/recording_notifier.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio::testing {

// Short, late and failing, within what the kernel may do (hostile-input.md 13).
class FuzzBackend {
 public:
  explicit FuzzBackend(const FuzzRam& ram) : ram_(ram) {
    io.hold = [this](const FakeIo::Request& request) {
      return ((held_kinds_ >> static_cast<unsigned>(request.kind)) & 1) != 0;
    };
    io.answer = [this](const FakeIo::Request& request) { return answer(request); };
  }
  ~FuzzBackend() {
    io.hold = nullptr;
    io.answer = nullptr;
    io.drain();
  }
  FuzzBackend(const FuzzBackend&) = delete;
  FuzzBackend& operator=(const FuzzBackend&) = delete;

  // Kinds of operations, a bit each, that do not complete.
  void hold(std::uint8_t kinds) { held_kinds_ = kinds; }
  // The next operations end like this: two bytes for each.
  void take_answers(FuzzInput& input) {
    for (std::size_t i = input.below(4) + 1; i > 0; --i) {
      const auto kind = static_cast<Answer>(input.below(kAnswers));
      next_.push_back({kind, input.byte()});
    }
  }
  // And all behind them like that. Not by interrupting them: a system call is not interrupted for
  // ever.
  void take_last_answer(FuzzInput& input) {
    last_ = static_cast<Answer>(input.below(kAnswers));
    if (last_ == Answer::kInterrupted || last_ == Answer::kShort) {
      last_ = Answer::kHonest;
    }
  }
  void behave() {
    held_kinds_ = 0;
    next_.clear();
    last_ = Answer::kHonest;
  }
  void run(std::size_t rounds) {
    while (rounds-- > 0 && io.run_once() > 0) {
    }
  }

  FakeIo io;
  // Whether the device may read into memory of its own.
  bool copies = false;
  // Of the device: fails on an operation that it must not ask for.
  std::function<void(const FakeIo::Request&)> check;

 private:
  enum class Answer : std::uint8_t {
    kHonest,
    kShort,
    kInterrupted,
    kNothing,
    kIoError,
    kNoSpace,
    kUnsupported,
  };
  static constexpr std::size_t kAnswers = 7;

  std::optional<std::int32_t> answer(const FakeIo::Request& request) {
    using Kind = FakeIo::Kind;
    const bool certain = request.kind == Kind::kDefer || request.kind == Kind::kTimeout ||
                         request.kind == Kind::kOffload;
    if (certain) {
      return std::nullopt;
    }
    if (request.kind == Kind::kRead) {
      for (const iovec& piece : request.buffers) {
        require(copies || ram_.holds(piece), "what the host gives is put into RAM");
      }
    }
    if (check) {
      check(request);
    }
    std::pair<Answer, std::uint8_t> next{last_, 0};
    if (!next_.empty()) {
      next = next_.front();
      next_.pop_front();
    }
    const bool transfers = request.kind == Kind::kRead || request.kind == Kind::kWrite;
    switch (next.first) {
      case Answer::kHonest:
        return std::nullopt;
      case Answer::kShort:
        return transfers ? FakeIo::perform_short(request, std::size_t{8} * next.second + 1)
                         : std::nullopt;
      case Answer::kInterrupted:
        return request.kind == Kind::kPoll ? std::nullopt : std::optional(-EINTR);
      case Answer::kNothing:
        return transfers ? 0 : -EIO;
      case Answer::kIoError:
        return -EIO;
      case Answer::kNoSpace:
        return -ENOSPC;
      case Answer::kUnsupported:
        return -EOPNOTSUPP;
    }
    return std::nullopt;
  }

  const FuzzRam& ram_;
  std::uint8_t held_kinds_ = 0;
  std::deque<std::pair<Answer, std::uint8_t>> next_;
  Answer last_ = Answer::kHonest;
};

// In front of one device, as its transport would be.
class FuzzDriver {
 public:
  // `choices`: those of the device's first 8 features that a driver may accept or not; `always`:
  // features that it accepts.
  FuzzDriver(Device& device, const FuzzRam& ram, FuzzBackend& backend, std::uint8_t choices = 0,
             std::uint64_t always = 0)
      : device_(device), ram_(ram), backend_(backend), choices_(choices), always_(always) {}

  // What any guest may do. A device's own actions come behind these.
  enum class Action : std::uint8_t {
    kKick,     // queue
    kRun,      // rounds: lets operations complete
    kHold,     // FuzzBackend::hold()
    kAnswers,  // FuzzBackend::take_answers()
    kAlways,   // FuzzBackend::take_last_answer()
    kPoke,     // address, how many bytes, bytes
    kOffer,    // queue, buffers
    kJump,     // queue, where its available index is from where it was
    kReset,    // what activate() takes
  };
  static constexpr std::size_t kActions = 9;

  void act(Action action, FuzzInput& input) {
    switch (action) {
      case Action::kKick:
        kick(input.below(queues_.size()));
        break;
      case Action::kRun:
        backend_.run(input.below(8) + 1);
        break;
      case Action::kHold:
        backend_.hold(input.byte());
        break;
      case Action::kAnswers:
        backend_.take_answers(input);
        break;
      case Action::kAlways:
        backend_.take_last_answer(input);
        break;
      case Action::kPoke: {
        const GuestAddress address = FuzzRam::take_address(input);
        ram_.poke(address, input.take_bytes(input.byte()));
        break;
      }
      case Action::kOffer: {
        const std::size_t queue = input.below(queues_.size());
        offer(queue, take_buffers(input, false), input.byte());
        break;
      }
      case Action::kJump: {
        Rings& rings = queues_[input.below(queues_.size())];
        rings.next_available = static_cast<std::uint16_t>(rings.next_available +
                                                          static_cast<std::int8_t>(input.byte()));
        ram_.poke(rings.geometry.available + kAvailableIndex, rings.next_available);
        break;
      }
      case Action::kReset:
        reset();
        activate(input);
        break;
    }
  }

  // Rings that are mostly in order, and small.
  void activate(FuzzInput& input) {
    std::vector<Queue> queues;
    std::uint64_t features = (std::uint64_t{input.byte()} << 28) | kFeatureVersion1 | always_;
    if (choices_ != 0) {
      features |= input.byte() & choices_;
    }
    queues_.assign(device_.queues_needed(features), {});
    for (std::size_t i = 0; i < queues_.size(); ++i) {
      const std::uint8_t choice = input.byte();
      QueueGeometry geometry = layout(i, static_cast<std::uint16_t>(1U << choice % 5));
      if (choice >= 0xc0) {
        geometry = {geometry.size, FuzzRam::take_address(input), FuzzRam::take_address(input),
                    FuzzRam::take_address(input)};
      }
      auto queue = Queue::create(ram_.memory(), geometry, features);
      if (!queue) {
        geometry = layout(i, geometry.size);
        queue = Queue::create(ram_.memory(), geometry, features);
      }
      queues_[i] = {geometry, 0, 0};
      // As a driver does before it starts a device; what else is in memory is what it was.
      ram_.poke(geometry.available + kAvailableIndex, std::uint16_t{0});
      ram_.poke(geometry.used + kUsedIndex, std::uint16_t{0});
      queues.push_back(std::move(*queue));
    }
    features_ = features;
    notifier_ = {};
    device_.activate(std::move(queues), features, notifier_);
  }
  // Of the driver that the device has, or had last.
  [[nodiscard]] std::uint64_t features() const { return features_; }
  [[nodiscard]] std::size_t queues() const { return queues_.size(); }
  [[nodiscard]] const QueueGeometry& geometry(std::size_t queue) const {
    return queues_.at(queue).geometry;
  }

  void kick(std::size_t queue) {
    if (notifier_.resets_wanted == 0) {  // as the transport does
      device_.on_queue(static_cast<std::uint16_t>(queue));
    }
  }

  // Up to seven; address, length (2 bytes), and whether the next byte's low bit turns `writable`.
  static std::vector<Buffer> take_buffers(FuzzInput& input, bool writable) {
    std::vector<Buffer> buffers(input.below(8));
    for (Buffer& buffer : buffers) {
      buffer.address = FuzzRam::take_address(input);
      const auto length = input.take<std::uint16_t>();
      buffer.length = length == 0xffff ? 0xffff'ffff : length;
      buffer.writable = writable != ((input.byte() & 1) != 0);
    }
    return buffers;
  }

  // Makes a chain of `buffers` available, in the ring's descriptors or, if `shape` is odd, in a
  // table of their own.
  void offer(std::size_t queue, std::span<const Buffer> buffers, std::uint8_t shape) {
    Rings& rings = queues_[queue];
    const std::uint16_t size = rings.geometry.size;
    const std::uint16_t head = rings.next_descriptor;
    GuestAddress table = rings.geometry.descriptors;
    std::uint16_t current = head;
    std::uint16_t entries = size;
    if ((shape & 1) != 0) {
      table = FuzzRam::kStart + FuzzRam::kFirst - kPage / 2;
      const auto length = static_cast<std::uint32_t>(buffers.size() * sizeof(Descriptor));
      ram_.poke(rings.geometry.descriptors + head * sizeof(Descriptor),
                Descriptor{table, length, kDescriptorIndirect, 0});
      current = 0;
      entries = 64;
      rings.next_descriptor = static_cast<std::uint16_t>((head + 1) % size);
    }
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      const auto next = static_cast<std::uint16_t>((current + 1) % entries);
      const auto flags = static_cast<std::uint16_t>((buffers[i].writable ? kDescriptorWrite : 0) |
                                                    (i + 1 < buffers.size() ? kDescriptorNext : 0));
      ram_.poke(table + current * sizeof(Descriptor),
                Descriptor{buffers[i].address, buffers[i].length, flags, next});
      current = next;
    }
    if ((shape & 1) == 0) {
      rings.next_descriptor = current;
    }
    ram_.poke(rings.geometry.available + kAvailableEntries +
                  std::uint64_t{2} * (rings.next_available % size),
              head);
    ++rings.next_available;
    ram_.poke(rings.geometry.available + kAvailableIndex, rings.next_available);
  }

  // However the backend goes on answering, a device comes to rest (hostile-input.md 25).
  void settle() {
    constexpr std::size_t kRounds = 1000;  // far more than any request takes
    backend_.hold(0);
    std::size_t rounds = 0;
    while (backend_.io.run_once() > 0) {
      require(++rounds < kRounds, "a device does not ask again and again for what fails");
    }
  }

  // A reset is over once every operation is that would touch guest memory, however late and however
  // it ends, and not before (hostile-input.md 14).
  void reset() {
    bool done = false;
    device_.reset([&] {
      require(!done, "a reset is over once");
      done = true;
      for (const FakeIo::Request& request : backend_.io.requests()) {
        for (const iovec& piece : request.buffers) {
          require(!ram_.holds(piece), "no operation touches guest memory once a reset is over");
        }
      }
    });
    backend_.run(2);
    backend_.hold(0);
    backend_.run(8);
    require(done, "a reset is over when the operations are");
    MemoryWatch watch(ram_);
    backend_.behave();
    backend_.run(8);
    watch.check("guest memory is left alone once a reset is over");
    require(backend_.io.pending() == 0, "a device that was reset waits for nothing");
  }

  // After whatever there was: a driver that does all as it should, with queues of `kGoodSize`.
  static constexpr std::uint16_t kGoodSize = 16;
  std::vector<DriverQueue> start_well(std::uint64_t features = kFeatureVersion1) {
    std::vector<DriverQueue> drivers;
    std::vector<Queue> queues;
    features_ = features;
    queues_.assign(device_.queues_needed(features), {});
    for (std::size_t i = 0; i < queues_.size(); ++i) {
      queues_[i].geometry = layout(i, kGoodSize);
      drivers.emplace_back(ram_.ram(), queues_[i].geometry.descriptors, kGoodSize).restart();
      drivers.back().set_flags(0);
      queues.push_back(drivers.back().device_side());
    }
    notifier_ = {};
    device_.activate(std::move(queues), features, notifier_);
    return drivers;
  }
  [[nodiscard]] const RecordingNotifier& notifier() const { return notifier_; }

 private:
  struct Rings {
    QueueGeometry geometry;
    std::uint16_t next_available = 0;
    std::uint16_t next_descriptor = 0;
  };

  [[nodiscard]] QueueGeometry layout(std::size_t queue, std::uint16_t size) const {
    return DriverQueue(ram_.ram(), FuzzRam::kStart + queue * 0x400, size).geometry();
  }

  Device& device_;
  const FuzzRam& ram_;
  FuzzBackend& backend_;
  const std::uint8_t choices_;
  const std::uint64_t always_;
  RecordingNotifier notifier_;
  std::vector<Rings> queues_;
  std::uint64_t features_ = 0;
};

// A whole input: what world it is, steps in it, and what must hold behind them.
template <typename World>
int run_world(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  World world(input);
  while (!input.empty()) {
    world.step(input);
  }
  world.finish();
  return 0;
}

}  // namespace msb::virtio::testing

// The input of libFuzzer, which calls it, and of cmake/fuzz_seeds_test.cpp.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
