// SPDX-License-Identifier: Apache-2.0
// Event indexes: who wants to hear of what (2.7.7, 2.7.10; hostile-input.md 35).
#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>

#include "virtio/queue.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/guest_ram.hpp"

namespace msb::virtio {
namespace {

using testing::DriverQueue;
using testing::GuestRam;
using testing::kPage;

constexpr GuestAddress kBase = GuestRam::kStart;
constexpr GuestAddress kData = GuestRam::kStart + 8 * kPage;

// The definition, by counting: `event` is among the entries before, before + 1, ... now - 1.
bool counted(std::uint16_t event, std::uint16_t before, std::uint16_t now) {
  for (std::uint16_t at = before; at != now; ++at) {
    if (at == event) {
      return true;
    }
  }
  return false;
}

TEST_CASE("an event has passed when it is among the entries added, at every wrap of 16 bits") {
  for (const std::uint32_t before : {0U, 1U, 5U, 0x7fffU, 0x8000U, 0xfff0U, 0xfffeU, 0xffffU}) {
    for (const std::uint32_t step : {0U, 1U, 2U, 3U, 17U, 255U, 0x7fffU, 0x8000U, 0xffffU}) {
      const auto from = static_cast<std::uint16_t>(before);
      const auto to = static_cast<std::uint16_t>(before + step);
      for (std::uint32_t distance = 0; distance < 40; ++distance) {
        for (const std::uint32_t event :
             {before + distance, before - distance, before + step + distance,
              before + step - distance, 0x8000U + distance}) {
          const auto wanted = static_cast<std::uint16_t>(event);
          if (event_passed(wanted, from, to) != counted(wanted, from, to)) {
            FAIL("event ", wanted, " from ", from, " to ", to);
          }
        }
      }
    }
  }
}

struct Fixture {
  GuestRam ram;
  DriverQueue driver{ram, kBase, 8};
  Queue queue = driver.device_side(kFeatureEventIndex);

  void serve(int count) {
    for (int i = 0; i < count; ++i) {
      driver.add({{kData, 8, true}});
      auto chain = queue.pop();
      REQUIRE(chain);
      REQUIRE(*chain);
      queue.push(std::move(**chain), 0);
      driver.take_used();
    }
  }
};

TEST_CASE_FIXTURE(Fixture,
                  "the driver is interrupted for the used entry that it named, and not before") {
  driver.set_used_event(0);
  serve(1);
  CHECK(queue.take_interrupt());
  driver.set_used_event(3);  // entries 1 to 3, then tell me
  serve(2);
  CHECK_FALSE(queue.take_interrupt());
  serve(1);
  CHECK(queue.take_interrupt());
  CHECK_FALSE(queue.take_interrupt());
  serve(5);  // an old event says nothing about what comes later
  CHECK_FALSE(queue.take_interrupt());
}

TEST_CASE_FIXTURE(Fixture, "a batch that steps over the named entry interrupts") {
  driver.set_used_event(4);
  serve(8);
  CHECK(queue.take_interrupt());
}

TEST_CASE_FIXTURE(Fixture, "with event indexes the flags mean nothing") {
  driver.set_flags(kAvailableNoInterrupt);
  driver.set_used_event(0);
  serve(1);
  CHECK(queue.take_interrupt());
}

TEST_CASE_FIXTURE(Fixture, "the device asks to be kicked for the next chain when it finds none") {
  for (std::uint16_t round = 1; round <= 20; ++round) {
    serve(1);
    auto none = queue.pop();
    REQUIRE(none);
    CHECK_FALSE(*none);
    CHECK(driver.available_event() == round);
  }
}

TEST_CASE_FIXTURE(Fixture, "while the device finds chains it asks for no kick") {
  driver.add({{kData, 8, true}});
  driver.add({{kData, 8, true}});
  auto first = queue.pop();
  REQUIRE(first);
  REQUIRE(*first);
  CHECK(driver.available_event() == 0);
}

TEST_CASE("without event indexes their fields are left alone") {
  GuestRam ram;
  DriverQueue driver(ram, kBase, 8);
  Queue queue = driver.device_side();
  driver.add({{kData, 8, true}});
  auto chain = queue.pop();
  REQUIRE(chain);
  REQUIRE(*chain);
  REQUIRE(queue.pop());
  CHECK(driver.available_event() == 0);
}

TEST_CASE(
    "no chain and no answer is ever waited for in vain, with both sides sleeping when told to") {
  // The driver kicks, and the device interrupts, only as the event indexes say. A side that is not
  // told sleeps for good, so a lost notification ends the test by its time.
  constexpr std::uint32_t kRounds = 50'000;
  GuestRam ram;
  const DriverQueue layout(ram, kBase, 4);
  Queue queue = layout.device_side(kFeatureEventIndex);
  std::atomic<std::uint32_t> kicks = 0;
  std::atomic<std::uint32_t> interrupts = 0;
  std::thread device([&] {
    std::uint32_t seen = 0;
    std::uint32_t served = 0;
    while (served < kRounds) {
      kicks.wait(seen);
      seen = kicks.load();
      while (true) {
        auto chain = queue.pop();
        if (!chain || !*chain) {
          break;
        }
        queue.push(std::move(**chain), 0);
        ++served;
        if (queue.take_interrupt()) {
          ++interrupts;
          interrupts.notify_one();
        }
      }
    }
  });
  const QueueGeometry& geometry = layout.geometry();
  const auto rings = *ram.memory().slice(kBase, layout.end() - kBase);
  const std::size_t available = geometry.available - kBase;
  const std::size_t used = geometry.used - kBase;
  const std::size_t used_event = available + kAvailableEntries + 2 * geometry.size;
  const std::size_t available_event = used + kUsedEntries + sizeof(UsedElement) * geometry.size;
  for (std::uint16_t i = 0; i < geometry.size; ++i) {
    rings.store(i * sizeof(Descriptor), Descriptor{kData, 8, kDescriptorWrite, 0});
    rings.store_atomic(available + kAvailableEntries + 2U * i, i, std::memory_order_relaxed);
  }
  std::uint32_t added = 0;
  std::uint32_t taken = 0;
  std::uint32_t told = 0;
  while (taken < kRounds) {
    const std::uint32_t before = added;
    while (added < kRounds && added - taken < geometry.size && added - before < 1 + added % 3) {
      ++added;
    }
    rings.store_atomic(available + kAvailableIndex, static_cast<std::uint16_t>(added),
                       std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (event_passed(rings.load_atomic(available_event, std::memory_order_relaxed),
                     static_cast<std::uint16_t>(before), static_cast<std::uint16_t>(added))) {
      ++kicks;
      kicks.notify_one();
    }
    // 2.7.14: names what it has seen, then looks once more before it sleeps.
    while (true) {
      const std::uint16_t index = rings.load_atomic(used + kUsedIndex, std::memory_order_acquire);
      taken += static_cast<std::uint16_t>(index - static_cast<std::uint16_t>(taken));
      if (added - taken < geometry.size && added < kRounds) {
        break;
      }
      if (taken == kRounds) {
        break;
      }
      rings.store_atomic(used_event, static_cast<std::uint16_t>(taken), std::memory_order_relaxed);
      std::atomic_thread_fence(std::memory_order_seq_cst);
      if (rings.load_atomic(used + kUsedIndex, std::memory_order_acquire) !=
          static_cast<std::uint16_t>(taken)) {
        continue;
      }
      interrupts.wait(told);
      told = interrupts.load();
    }
  }
  device.join();
  MESSAGE(kicks.load(), " kicks and ", interrupts.load(), " interrupts for ", kRounds, " chains");
}

}  // namespace
}  // namespace msb::virtio
