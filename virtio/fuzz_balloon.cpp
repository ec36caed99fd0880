// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a balloon between any guest and a host that changes its mind. The input is what
// the driver accepts, how its queues are set up, and steps. Whatever was done, nothing but pages of
// guest RAM that a request may name is discarded, the device says how much that was, and it works
// after a reset (hostile-input.md 9, 10, 20). Seeds: tests/corpus/virtio-balloon.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <vector>

#include "virtio/balloon/balloon_device.hpp"
#include "virtio/testing/fuzz_driver.hpp"

namespace msb::virtio {
namespace {

using namespace testing;

constexpr std::uint64_t kAll = kFeatureVersion1 | kBalloonFeatureStats | kBalloonFeatureReporting;
constexpr std::uint8_t kChoices =
    kBalloonFeatureStats | kBalloonFeatureDeflateOnOom | kBalloonFeatureReporting;
constexpr std::size_t kGoodReportingQueue = 3;  // of a driver that accepted both
constexpr std::uint64_t kRamSize = FuzzRam::kFirst + FuzzRam::kSecond;
constexpr GuestAddress kRequests = FuzzRam::kStart + 4 * kPage;
constexpr std::size_t kRequestRoom = 256;  // bytes: the longest that give_numbers() writes
constexpr std::size_t kSlots = 16;
constexpr std::uint32_t kFirstPage = FuzzRam::kStart / kPage;
constexpr std::uint32_t kGoodPage = kFirstPage + 5;                      // and the next
constexpr std::uint32_t kNoPage = kFirstPage + FuzzRam::kFirst / kPage;  // in the hole

constexpr std::byte kFull{0x5a};
constexpr std::byte kEmpty{0};

std::vector<iovec>* discards = nullptr;  // what was discarded lately, while a world exists

class World {
 public:
  explicit World(FuzzInput& input) {
    discards = &discarded_;
    driver_.activate(input);
  }
  ~World() { discards = nullptr; }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  void step(FuzzInput& input) {
    const std::size_t action = input.below(FuzzDriver::kActions + kActions);
    if (action == static_cast<std::size_t>(FuzzDriver::Action::kKick)) {
      kick(input.below(driver_.queues()));
    } else if (action < FuzzDriver::kActions) {
      driver_.act(static_cast<FuzzDriver::Action>(action), input);
    } else {
      act(static_cast<Action>(action - FuzzDriver::kActions), input);
    }
    require(
        device_.actual_pages() <= kRamSize / kPage && device_.target_pages() <= kRamSize / kPage,
        "a balloon is not larger than RAM");
  }

  void finish() {
    driver_.settle();
    driver_.reset();
    require(device_.actual_pages() == 0 && !device_.stats(), "a reset forgets what a guest said");
    check_works();
    driver_.reset();
  }

 private:
  enum class Action : std::uint8_t {
    kInflate,   // by the guest: see give_numbers()
    kDeflate,   // likewise
    kReport,    // by the guest: buffers
    kStats,     // by the guest: how many entries, each its tag and a byte of value
    kConfig,    // by the guest: offset, bytes
    kTarget,    // by the host: pages
    kAskStats,  // by the host
  };
  static constexpr std::size_t kActions = 7;

  void act(Action action, FuzzInput& input) {
    switch (action) {
      case Action::kInflate:
        give_numbers(kBalloonInflateQueue, input);
        break;
      case Action::kDeflate:
        give_numbers(kBalloonDeflateQueue, input);
        break;
      case Action::kReport: {
        const std::vector<Buffer> buffers = FuzzDriver::take_buffers(input, true);
        driver_.offer(driver_.queues() - 1, buffers, input.byte());
        break;
      }
      case Action::kStats:
        give_stats(input);
        break;
      case Action::kConfig: {
        const std::size_t offset = input.below(sizeof(BalloonConfig));
        const auto bytes = input.take_bytes(input.below(sizeof(BalloonConfig) - offset + 1));
        const std::uint32_t target = device_.target_pages();
        device_.write_config(offset, bytes);
        require(device_.target_pages() == target, "the target is the host's");
        break;
      }
      case Action::kTarget: {
        const std::uint8_t pages = input.byte();
        device_.set_target(pages < 0xf0 ? pages : input.take<std::uint64_t>());
        break;
      }
      case Action::kAskStats:
        device_.request_stats();
        break;
    }
  }

  // What a kick changes in memory: rings, and pages that were discarded, which only inflation and
  // reports ask for.
  void kick(std::size_t queue) {
    discarded_.clear();
    const std::uint64_t returned = device_.returned_bytes();
    MemoryWatch watch(ram_);
    driver_.kick(queue);
    std::uint64_t size = 0;
    for (const iovec& range : discarded_) {
      require(ram_.holds(range) && reinterpret_cast<std::uintptr_t>(range.iov_base) % kPage == 0 &&
                  range.iov_len % kPage == 0,
              "nothing but pages of RAM is discarded");
      watch.permit(range);
      size += range.iov_len;
    }
    const QueueGeometry& rings = driver_.geometry(queue);
    watch.permit(rings.used, kUsedEntries + sizeof(UsedElement) * rings.size + 2);
    watch.check("only what is discarded and the used ring change");
    require(device_.returned_bytes() == returned + size, "what was discarded is counted");
    const bool stats =
        queue == kBalloonStatsQueue && (driver_.features() & kBalloonFeatureStats) != 0;
    require(size == 0 || (queue != kBalloonDeflateQueue && !stats),
            "deflation and statistics discard nothing");
    require(queue < kBalloonStatsQueue || size <= kRamSize, "no page is reported twice in a kick");
  }

  // Page numbers, how many, near RAM or anywhere; what their length is off by; descriptors.
  void give_numbers(std::uint16_t queue, FuzzInput& input) {
    std::vector<std::uint32_t> numbers(input.below(kRequestRoom / sizeof(std::uint32_t)));
    for (std::uint32_t& number : numbers) {
      const std::uint8_t near = input.byte();
      number = near < 0xf0 ? kFirstPage - 1 + near % 14 : input.take<std::uint32_t>();
    }
    give(queue, std::as_bytes(std::span(numbers)), input);
  }

  void give_stats(FuzzInput& input) {
    std::vector<BalloonStat> entries(input.below(kRequestRoom / sizeof(BalloonStat)));
    for (BalloonStat& entry : entries) {
      entry.tag = static_cast<BalloonStatTag>(input.byte());
      entry.value = input.byte();
    }
    if (driver_.queues() > kBalloonStatsQueue) {
      give(kBalloonStatsQueue, std::as_bytes(std::span(entries)), input);
    }
  }

  void give(std::uint16_t queue, std::span<const std::byte> request, FuzzInput& input) {
    const GuestAddress at = kRequests + next_slot_++ % kSlots * kRequestRoom;
    ram_.poke(at, request);
    const auto wrong = static_cast<std::int8_t>(input.byte());
    const auto size = static_cast<std::uint32_t>(request.size() + wrong / 64);
    const auto split = static_cast<std::uint32_t>(std::min<std::size_t>(input.byte(), size));
    driver_.offer(queue,
                  std::array{Buffer{at, split, false}, Buffer{at + split, size - split, false}},
                  input.byte());
  }

  // More requests than there are entries: none of them may be lost (hostile-input.md 9).
  void check_works() {
    auto queues = driver_.start_well(kAll);
    const auto serve = [&](std::uint16_t queue, Buffer buffer, bool good) {
      const std::uint64_t errors = device_.counters().errors;
      queues[queue].add({buffer});
      kick(queue);
      const auto used = queues[queue].take_used();
      require(used.has_value() && used->length == 0, "a request is answered after a reset");
      require(device_.counters().errors == errors + (good ? 0 : 1),
              "a request for what is no RAM is an error, and none other is");
    };
    const auto numbers = [&](std::uint16_t queue, std::initializer_list<std::uint32_t> pages,
                             bool good = true) {
      ram_.poke(kRequests, std::as_bytes(std::span(pages)));
      const auto size = static_cast<std::uint32_t>(pages.size() * sizeof(std::uint32_t));
      serve(queue, {kRequests, size, false}, good);
    };
    const std::vector<std::byte> full(2 * kPage, kFull);
    ram_.ram().put_bytes(kGoodPage * kPage, full);
    // The content of the two pages, which are filled again.
    const auto expect = [&](std::byte first, std::byte second) {
      std::vector<std::byte> content(2 * kPage, first);
      std::fill_n(content.begin() + kPage, kPage, second);
      const auto now = ram_.ram().bytes(kGoodPage * kPage, 2 * kPage);
      require(std::memcmp(now.data(), content.data(), now.size()) == 0,
              "exactly the pages asked for are empty");
      ram_.ram().put_bytes(kGoodPage * kPage, full);
    };
    for (std::uint32_t i = 0; i <= FuzzDriver::kGoodSize; ++i) {
      numbers(kBalloonInflateQueue, {kGoodPage + 1, kGoodPage});
      expect(kEmpty, kEmpty);
      numbers(kBalloonInflateQueue, {kGoodPage, kNoPage, 0xffff'ffff}, false);
      expect(kEmpty, kFull);
      numbers(kBalloonDeflateQueue, {kGoodPage, kGoodPage + 1});
      numbers(kBalloonDeflateQueue, {kNoPage}, false);
      expect(kFull, kFull);
      serve(kGoodReportingQueue, {(kGoodPage + 1) * kPage, kPage, true}, true);
      expect(kFull, kEmpty);
      check_stats(queues[kBalloonStatsQueue], i);
    }
    require(driver_.notifier().resets_wanted == 0 && driver_.notifier().interrupts > 0,
            "a driver is told of its answers");
  }

  void check_stats(DriverQueue& queue, std::uint64_t value) {
    ram_.poke(kRequests, BalloonStat{BalloonStatTag::kFreeMemory, value});
    queue.add({{kRequests, sizeof(BalloonStat), false}});
    kick(kBalloonStatsQueue);
    require(device_.stats() && device_.stats()->free_memory == value, "statistics arrive");
    require(!queue.take_used() && device_.request_stats() && queue.take_used() &&
                !device_.request_stats(),
            "a driver is asked for statistics once it has given some");
  }

  FuzzRam ram_;
  FuzzBackend backend_{ram_};  // a balloon asks nothing of it
  BalloonDevice device_{ram_.memory()};
  FuzzDriver driver_{device_, ram_, backend_, kChoices};
  std::vector<iovec> discarded_;
  std::size_t next_slot_ = 0;
};

}  // namespace
}  // namespace msb::virtio

// NOLINTBEGIN(bugprone-reserved-identifier): the names are those of ld(1), --wrap
extern "C" int __real_madvise(void* start, std::size_t size, int advice);
extern "C" int __wrap_madvise(void* start, std::size_t size, int advice);

extern "C" int __wrap_madvise(void* start, std::size_t size, int advice) {
  const int result = __real_madvise(start, size, advice);
  if (advice == MADV_DONTNEED && msb::virtio::discards != nullptr) {
    msb::virtio::discards->push_back({start, size});
    static constexpr std::array<std::byte, msb::virtio::kRamSize> kZeros{};
    msb::virtio::testing::require(
        result == 0 && size <= kZeros.size() && std::memcmp(start, kZeros.data(), size) == 0,
        "what is discarded is part of RAM, and reads as zeros");
  }
  return result;
}
// NOLINTEND(bugprone-reserved-identifier)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return msb::virtio::testing::run_world<msb::virtio::World>(data, size);
}
