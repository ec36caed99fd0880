// SPDX-License-Identifier: Apache-2.0
// Drivers that break the ring, or put requests into it that cannot be served (hostile-input.md 4,
// 5, 6, 7, 8, 9, 15).
#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <random>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "virtio/queue.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/racing_guest.hpp"

namespace msb::virtio {
namespace {

using testing::DriverQueue;
using testing::GuestRam;
using testing::kPage;

constexpr GuestAddress kBase = GuestRam::kStart;
constexpr GuestAddress kData = GuestRam::kStart + 8 * kPage;
constexpr std::uint16_t kSize = 4;

struct Fixture {
  GuestRam ram;
  DriverQueue driver{ram, kBase, kSize};
  Queue queue = driver.device_side();

  // The queue is broken, stays so, and has written nothing.
  void check_broken(std::string_view message) {
    const auto before = ram.snapshot();
    auto chain = queue.pop();
    REQUIRE_FALSE(chain);
    CHECK(chain.error().message == message);
    driver.set_available_index(0);
    CHECK_FALSE(queue.pop());
    driver.set_available_index(1);
    CHECK_FALSE(queue.pop());
    auto after = ram.snapshot();
    const std::size_t index = driver.geometry().available + kAvailableIndex - GuestRam::kStart;
    after[index] = before[index];
    after[index + 1] = before[index + 1];
    CHECK(after == before);
  }
};

TEST_CASE_FIXTURE(Fixture, "a head beyond the table breaks the queue") {
  driver.offer(kSize);
  check_broken("available head 4 is beyond the queue's 4 descriptors");
}

TEST_CASE_FIXTURE(Fixture, "the largest head breaks the queue") {
  driver.offer(0xffff);
  check_broken("available head 65535 is beyond the queue's 4 descriptors");
}

TEST_CASE_FIXTURE(Fixture, "a next index beyond the table breaks the queue") {
  driver.set_descriptor(2, {kData, 8, kDescriptorNext, kSize});
  driver.offer(2);
  check_broken("descriptor 2 continues at 4, beyond the queue's 4");
}

TEST_CASE_FIXTURE(Fixture, "a next index is only looked at when the flag says so") {
  driver.set_descriptor(2, {kData, 8, 0, 0xffff});
  driver.offer(2);
  auto chain = queue.pop();
  REQUIRE(chain);
  CHECK(*chain);
}

TEST_CASE_FIXTURE(Fixture, "a descriptor that continues at itself breaks the queue") {
  driver.set_descriptor(1, {kData, 8, kDescriptorNext, 1});
  driver.offer(1);
  check_broken("the chain at descriptor 1 is longer than the queue");
}

TEST_CASE_FIXTURE(Fixture, "a loop of all descriptors breaks the queue") {
  for (std::uint16_t i = 0; i < kSize; ++i) {
    driver.set_descriptor(i,
                          {kData, 8, kDescriptorNext, static_cast<std::uint16_t>((i + 1) % kSize)});
  }
  driver.offer(3);
  check_broken("the chain at descriptor 3 is longer than the queue");
}

TEST_CASE_FIXTURE(Fixture, "a chain of exactly the queue's size is served") {
  for (std::uint16_t i = 0; i < kSize; ++i) {
    const std::uint16_t flags = i + 1 < kSize ? kDescriptorNext : std::uint16_t{0};
    driver.set_descriptor(i, {kData, 8, flags, static_cast<std::uint16_t>(i + 1)});
  }
  driver.offer(0);
  auto chain = queue.pop();
  REQUIRE(chain);
  REQUIRE(*chain);
  CHECK((*chain)->readable_size() == 8 * kSize);
}

TEST_CASE_FIXTURE(Fixture, "an indirect descriptor breaks the queue, as it was not negotiated") {
  driver.set_descriptor(0, {kData, 16, kDescriptorIndirect, 0});
  driver.offer(0);
  check_broken("descriptor 0 is indirect, which was not negotiated");
}

TEST_CASE_FIXTURE(Fixture, "an indirect descriptor behind others breaks the queue too") {
  driver.set_descriptor(0, {kData, 16, kDescriptorNext, 1});
  driver.set_descriptor(1,
                        {kData, 16, kDescriptorNext | kDescriptorWrite | kDescriptorIndirect, 2});
  driver.offer(0);
  check_broken("descriptor 1 is indirect, which was not negotiated");
}

TEST_CASE_FIXTURE(Fixture,
                  "an available index that jumps further than the queue is long breaks it") {
  driver.set_available_index(kSize + 1);
  check_broken("the available index jumped to 5 with 0 chains in flight");
}

TEST_CASE_FIXTURE(Fixture, "an available index that goes backwards breaks the queue") {
  driver.set_available_index(0xffff);
  check_broken("the available index jumped to 65535 with 0 chains in flight");
}

TEST_CASE_FIXTURE(Fixture,
                  "more chains than entries in flight break the queue, however they are named") {
  driver.set_descriptor(0, {kData, 8, kDescriptorWrite, 0});
  std::vector<DescriptorChain> held;
  for (std::uint16_t i = 0; i < kSize; ++i) {
    driver.offer(0);  // the same head again and again
    auto chain = queue.pop();
    REQUIRE(chain);
    REQUIRE(*chain);
    held.push_back(std::move(**chain));
  }
  driver.offer(0);
  auto chain = queue.pop();
  REQUIRE_FALSE(chain);
  CHECK(chain.error().message == "the available index jumped to 5 with 4 chains in flight");
  // What is in flight still comes back, once each.
  held.clear();
  CHECK(driver.used_index() == kSize);
}

TEST_CASE_FIXTURE(Fixture, "a returned chain makes room for another") {
  driver.set_descriptor(0, {kData, 8, kDescriptorWrite, 0});
  std::vector<DescriptorChain> held;
  for (std::uint32_t i = 0; i < 100; ++i) {
    driver.offer(0);
    auto chain = queue.pop();
    REQUIRE(chain);
    REQUIRE(*chain);
    held.push_back(std::move(**chain));
    if (held.size() == kSize) {
      held.erase(held.begin());
    }
  }
}

TEST_CASE_FIXTURE(Fixture,
                  "requests that cannot be served go back with length 0 and the queue goes on") {
  const GuestAddress end = ram.end();
  const std::vector<std::vector<Descriptor>> bad{
      {{end, 1, 0, 0}},                                  // just behind RAM
      {{end - 4, 8, kDescriptorWrite, 0}},               // over its end
      {{kBase - 4, 8, 0, 0}},                            // over its start
      {{0, 8, kDescriptorWrite, 0}},                     // the hole below
      {{~GuestAddress{0}, 1, 0, 0}},                     // the last byte there is
      {{~GuestAddress{0} - 3, 8, kDescriptorWrite, 0}},  // wraps
      {{kData, 0xffff'ffff, kDescriptorWrite, 0}},       // too long
      {{end + 1, 0, 0, 0}},                              // nothing, but beyond the end
      {{kData, 8, kDescriptorWrite | kDescriptorNext, 1},
       {kData, 8, 0, 0}},  // readable after writable
      {{kData, 0, kDescriptorWrite | kDescriptorNext, 1},
       {kData, 0, 0, 0}},                                             // the same with no bytes
      {{kData, 8, kDescriptorNext, 1}, {0, 8, 0, 0}},                 // bad behind good
      {{0, 8, kDescriptorNext, 1}, {kData, 8, kDescriptorWrite, 0}},  // good behind bad
  };
  for (std::size_t i = 0; i < bad.size(); ++i) {
    CAPTURE(i);
    for (std::uint16_t d = 0; d < bad[i].size(); ++d) {
      driver.set_descriptor(d, bad[i][d]);
    }
    // More of them than the ring has entries, one by one and all at once.
    for (int n = 0; n < 2 * kSize; ++n) {
      driver.offer(0);
      auto chain = queue.pop();
      REQUIRE(chain);
      REQUIRE(*chain);
      CHECK_FALSE((*chain)->servable());
      CHECK((*chain)->readable_size() + (*chain)->writable_size() == 0);
      chain->reset();
      const auto used = driver.take_used();
      REQUIRE(used);
      CHECK(used->id == 0);
      CHECK(used->length == 0);
    }
    for (int n = 0; n < kSize - 1; ++n) {
      driver.offer(0);
    }
    driver.set_descriptor(3, {kData, 8, kDescriptorWrite, 0});
    driver.offer(3);
    auto chain = queue.pop();
    while (chain && *chain && !(*chain)->servable()) {
      chain = queue.pop();
    }
    REQUIRE(chain);
    REQUIRE(*chain);
    CHECK(queue.take_interrupt());  // for those that went back
    queue.push(std::move(**chain), 5);
    CHECK(queue.take_interrupt());
    for (int n = 0; n < kSize - 1; ++n) {
      const auto used = driver.take_used();
      REQUIRE(used);
      CHECK(used->length == 0);
    }
    const auto used = driver.take_used();
    REQUIRE(used);
    CHECK(used->id == 3);
    CHECK(used->length == 5);
    CHECK_FALSE(driver.take_used());
  }
}

TEST_CASE_FIXTURE(Fixture, "flags without a meaning are ignored") {
  driver.set_descriptor(0, {kData, 8, 0xfff8, 0xffff});
  driver.offer(0);
  auto chain = queue.pop();
  REQUIRE(chain);
  REQUIRE(*chain);
  CHECK((*chain)->readable_size() == 8);
}

TEST_CASE_FIXTURE(Fixture, "an empty buffer at the very end of RAM is well-formed") {
  driver.set_descriptor(0, {ram.end(), 0, kDescriptorNext, 1});
  driver.set_descriptor(1, {kData, 8, kDescriptorWrite, 0});
  driver.offer(0);
  auto chain = queue.pop();
  REQUIRE(chain);
  REQUIRE(*chain);
  CHECK((*chain)->readable_size() == 0);
  CHECK((*chain)->writable_size() == 8);
}

TEST_CASE_FIXTURE(
    Fixture, "what a chain is was decided when it was popped, whatever the guest writes later") {
  driver.set_descriptor(0, {kData, 8, kDescriptorWrite, 0});
  driver.offer(0);
  auto chain = queue.pop();
  REQUIRE(chain);
  REQUIRE(*chain);
  driver.set_descriptor(0, {0, 0xffff'ffff, kDescriptorNext, 0xffff});
  const std::vector<std::byte> bytes(64, std::byte{1});
  CHECK((*chain)->write(0, bytes) == 8);
  CHECK(ram.get<std::uint8_t>(kData + 8) == 0);
  queue.push(std::move(**chain), 8);
  const auto used = driver.take_used();
  REQUIRE(used);
  CHECK(used->id == 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "chains that all share one long list cost bounded memory and come back") {
  for (std::uint16_t i = 0; i < kSize; ++i) {
    const std::uint16_t flags =
        i + 1 < kSize ? kDescriptorNext | kDescriptorWrite : kDescriptorWrite;
    driver.set_descriptor(i, {kData, 0x8000, flags, static_cast<std::uint16_t>(i + 1)});
  }
  std::vector<DescriptorChain> held;
  for (std::uint16_t i = 0; i < kSize; ++i) {
    driver.offer(0);
    auto chain = queue.pop();
    REQUIRE(chain);
    REQUIRE(*chain);
    CHECK((*chain)->writable_size() == kSize * 0x8000);
    held.push_back(std::move(**chain));
  }
  held.clear();
  CHECK(driver.used_index() == kSize);
}

// hostile-input.md 6. Whatever the interleaving, a chain holds ranges of RAM only and the queue
// answers.
TEST_CASE(
    "a guest that flips descriptors and rings while the device works stays within its memory" *
    doctest::skip(testing::kRacingGuestsAreReported)) {
  GuestRam ram;
  const DriverQueue layout(ram, kBase, kSize);
  std::atomic<bool> stop = false;
  std::thread guest([&] {
    std::minstd_rand random(7);
    const auto table = *ram.memory().slice(kBase, layout.end() - kBase);
    while (!stop.load(std::memory_order_relaxed)) {
      const std::size_t slot = random() % kSize * sizeof(Descriptor);
      const std::uint64_t address = random() % 2 == 0 ? kData : ram.end() - 4;
      table.store(slot, address);
      table.store(slot + 8, static_cast<std::uint32_t>(random() % 3 == 0 ? 0xffff'ffff : 8));
      table.store(slot + 12, static_cast<std::uint16_t>(random() % 4));
      table.store(slot + 14, static_cast<std::uint16_t>((random() >> 4) % (kSize + 1)));
      table.store_atomic(layout.geometry().available - kBase + kAvailableIndex,
                         static_cast<std::uint16_t>(1 + random() % kSize),
                         std::memory_order_release);
    }
  });
  std::size_t served = 0;
  const std::vector<std::byte> bytes(64, std::byte{0x5a});
  for (int round = 0; round < 20'000; ++round) {
    Queue queue = layout.device_side();
    for (int i = 0; i < 4 * kSize; ++i) {
      auto chain = queue.pop();
      if (!chain || !*chain) {
        break;
      }
      std::vector<std::byte> into(64);
      (*chain)->read(0, into);
      (*chain)->write(0, bytes);
      queue.push(std::move(**chain), 64);
      ++served;
    }
  }
  stop = true;
  guest.join();
  MESSAGE(served, " chains served while they were flipped");
}

}  // namespace
}  // namespace msb::virtio
