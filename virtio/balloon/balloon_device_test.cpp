// SPDX-License-Identifier: Apache-2.0
// The balloon's configuration, statistics and life (hostile-input.md 14, 20, 22, 24).
#include "virtio/balloon/balloon_device.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <vector>

#include "virtio/testing/balloon_guest.hpp"
#include "virtio/testing/transport_driver.hpp"

namespace msb::virtio {
namespace {

using testing::BalloonGuest;
using testing::kPage;
using testing::TransportDriver;

constexpr std::uint32_t kNegotiated = kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk;
constexpr std::uint64_t kActual = kMmioConfig + offsetof(BalloonConfig, actual);

// Statistics as Linux gives them, in one buffer.
struct StatsGuest : BalloonGuest {
  void put_stats(std::initializer_list<BalloonStat> entries) {
    ram.put_bytes(kRequest, std::as_bytes(std::span(entries.begin(), entries.size())));
  }
  void give_stats(std::uint32_t length) {
    stats.add({{kRequest, length, false}});
    device.on_queue(kBalloonStatsQueue);
  }
  void give_free_memory(std::uint64_t bytes) {
    put_stats({{BalloonStatTag::kFreeMemory, bytes}});
    give_stats(sizeof(BalloonStat));
  }
};

TEST_CASE_FIXTURE(BalloonGuest, "the device is a balloon with four queues and two fields") {
  CHECK(device.type() == 5);
  CHECK(device.features() == (2 | 4 | 32));
  CHECK(device.config().size() == 8);
  CHECK(device.max_queue_sizes().size() == 4);
  CHECK(device.queues_needed(kFeatureVersion1) == 2);
  CHECK(device.queues_needed(kFeatureVersion1 | kBalloonFeatureDeflateOnOom) == 2);
  CHECK(device.queues_needed(kFeatureVersion1 | kBalloonFeatureStats) == 3);
  CHECK(device.queues_needed(kFeatureVersion1 | kBalloonFeatureReporting) == 3);
  CHECK(device.queues_needed(kAll) == 4);
}

TEST_CASE_FIXTURE(BalloonGuest, "a target shows in the configuration, at most all of the RAM") {
  const auto shown = [&] {
    BalloonConfig config;
    std::memcpy(&config, device.config().data(), sizeof config);
    return config.num_pages;
  };
  CHECK(device.target_pages() == 0);
  device.set_target(10);
  CHECK(device.target_pages() == 10);
  CHECK(shown() == 10);
  CHECK(notifier.config_changes == 1);
  device.set_target(10);
  CHECK(notifier.config_changes == 1);  // it is no change
  for (const std::uint64_t pages :
       {kPages, kPages + 1, std::uint64_t{0xffff'ffff}, std::uint64_t{0x1'0000'0000},
        std::uint64_t{0x1'0000'0005}, ~std::uint64_t{0}}) {
    CAPTURE(pages);
    device.set_target(0);
    device.set_target(pages);
    CHECK(device.target_pages() == kPages);
    CHECK(shown() == kPages);
  }
}

TEST_CASE_FIXTURE(BalloonGuest, "what the driver writes is the actual size, and nothing else") {
  device.set_target(10);
  const auto write = [&](std::size_t offset, std::initializer_list<std::uint8_t> bytes) {
    device.write_config(offset, std::as_bytes(std::span(bytes.begin(), bytes.size())));
  };
  write(4, {7, 0, 0, 0});
  CHECK(device.actual_pages() == 7);
  write(0, {1, 1, 1, 1, 9, 0, 0, 0});
  CHECK(device.actual_pages() == 9);
  CHECK(device.target_pages() == 10);
  write(2, {0xff, 0xff, 0x20});
  CHECK(device.actual_pages() == 0x20);
  write(4, {6});
  write(5, {0});
  CHECK(device.actual_pages() == 6);
  CHECK(device.target_pages() == 10);
  // More than there are pages, and more than were asked for.
  write(4, {0xff, 0xff, 0xff, 0xff});
  CHECK(device.actual_pages() == kPages);
  write(7, {});
  write(8, {});
  write(4, {20, 0, 0, 0});
  CHECK(device.actual_pages() == 20);
  CHECK(notifier.config_changes == 1);  // it knows
}

TEST_CASE_FIXTURE(StatsGuest, "the first buffer is kept, and asking for statistics returns it") {
  CHECK_FALSE(device.stats());
  CHECK_FALSE(device.request_stats());  // nothing to ask with
  give_free_memory(1000);
  CHECK_FALSE(stats.take_used());
  CHECK(notifier.interrupts == 0);
  REQUIRE(device.stats());
  CHECK(device.stats()->free_memory == 1000);
  CHECK_FALSE(device.stats()->total_memory);

  for (std::uint64_t bytes = 2000; bytes < 2010; ++bytes) {
    CHECK(device.request_stats());
    const auto used = stats.take_used();
    REQUIRE(used);
    CHECK(used->length == 0);
    CHECK_FALSE(device.request_stats());  // not answered yet
    CHECK_FALSE(stats.take_used());
    give_free_memory(bytes);
    CHECK(device.stats()->free_memory == bytes);
  }
  CHECK(notifier.interrupts == 10);
  CHECK(device.counters().requests == 10);
  CHECK(device.counters().errors == 0);
}

TEST_CASE_FIXTURE(StatsGuest, "statistics are read once: what the buffer says later is not heard") {
  give_free_memory(1000);
  put_stats({{BalloonStatTag::kFreeMemory, 2000}});
  CHECK(device.stats()->free_memory == 1000);
  device.request_stats();
  CHECK(device.stats()->free_memory == 1000);
}

TEST_CASE_FIXTURE(StatsGuest, "a second buffer goes straight back, and the first is kept") {
  give_free_memory(1000);
  put_stats({{BalloonStatTag::kFreeMemory, 2000}});
  for (int i = 0; i < 100; ++i) {
    const std::uint16_t head = stats.add({{kRequest, 10, false}});
    device.on_queue(kBalloonStatsQueue);
    const auto used = stats.take_used();
    REQUIRE(used);
    CHECK(used->id == head);
    CHECK(used->length == 0);
  }
  CHECK(device.stats()->free_memory == 1000);
  CHECK(device.counters().errors == 100);
  CHECK(device.request_stats());
  CHECK(stats.take_used());
  CHECK_FALSE(device.request_stats());
}

TEST_CASE_FIXTURE(StatsGuest, "a buffer of any length is kept and read as far as it goes") {
  put_stats({{BalloonStatTag::kFreeMemory, 1}, {BalloonStatTag::kTotalMemory, 2}});
  for (std::uint32_t length = 0; length <= 20; ++length) {
    CAPTURE(length);
    give_stats(length);
    CHECK_FALSE(stats.take_used());
    CHECK(device.stats().has_value() == (length >= 10));
    if (device.stats()) {
      CHECK(device.stats()->free_memory == 1);
      CHECK(device.stats()->total_memory.has_value() == (length == 20));
    }
    CHECK(device.request_stats());
    CHECK(stats.take_used());
  }
  // As long as RAM is: 32 entries are looked at.
  stats.add({{testing::GuestRam::kStart, kPages * kPage, false}});
  device.on_queue(kBalloonStatsQueue);
  CHECK_FALSE(stats.take_used());
  CHECK(device.request_stats());
  CHECK(device.counters().errors == 0);
}

TEST_CASE_FIXTURE(StatsGuest, "statistics may be split over descriptors at any byte") {
  put_stats({{BalloonStatTag::kFreeMemory, 0x1122'3344'5566'7788}, {BalloonStatTag::kSwapIn, 5}});
  for (std::uint32_t split = 0; split <= 20; ++split) {
    stats.add({{kRequest, split, false}, {kRequest + split, 20 - split, false}});
    device.on_queue(kBalloonStatsQueue);
    REQUIRE(device.stats());
    CHECK(device.stats()->free_memory == 0x1122'3344'5566'7788);
    CHECK(device.stats()->swapped_in == 5);
    CHECK(device.request_stats());
    CHECK(stats.take_used());
  }
}

TEST_CASE_FIXTURE(StatsGuest, "a reset forgets what the driver said, and keeps the target") {
  device.set_target(10);
  give_free_memory(1000);
  CHECK(inflate({kFree}));
  const std::uint32_t seven = 7;
  device.write_config(4, std::as_bytes(std::span(&seven, 1)));
  const auto before = ram.snapshot();
  bool done = false;
  device.reset([&] { done = true; });
  CHECK(done);
  CHECK(ram.snapshot() == before);  // the buffer that was kept is not returned
  CHECK(device.actual_pages() == 0);
  CHECK(device.target_pages() == 10);
  CHECK_FALSE(device.stats());
  CHECK_FALSE(device.request_stats());
  CHECK(device.returned_bytes() == kPage);
  const int changes = notifier.config_changes;
  device.set_target(20);
  CHECK(notifier.config_changes == changes);  // there is nobody to tell
  CHECK(device.target_pages() == 20);

  mark(kFree);
  restart();
  check_works();
  give_free_memory(3000);
  CHECK(device.stats()->free_memory == 3000);
  CHECK(device.request_stats());
}

TEST_CASE_FIXTURE(BalloonGuest, "a reset of an idle device is done at once, again and again") {
  for (int i = 0; i < 3; ++i) {
    bool done = false;
    device.reset([&] { done = true; });
    CHECK(done);
  }
}

// Linux gives its first buffer and kicks before DRIVER_OK.
TEST_CASE_FIXTURE(StatsGuest, "a statistics buffer from before DRIVER_OK is found") {
  device.reset([] {});
  stats.restart();
  put_stats({{BalloonStatTag::kFreeMemory, 1000}});
  stats.add({{kRequest, 10, false}});
  activate();
  REQUIRE(device.stats());
  CHECK(device.stats()->free_memory == 1000);
  CHECK(device.request_stats());
  CHECK(stats.take_used());
}

// A driver as Linux has it: it sets up the queues that its features give it, numbered without gaps.
struct TransportGuest : StatsGuest {
  TransportGuest() {
    device.reset([] {});
    for (testing::DriverQueue* queue : {&inflation, &deflation, &stats, &reporting}) {
      queue->restart();
    }
  }
  void start(std::uint64_t features) {
    REQUIRE(driver.negotiate(features) == kNegotiated);
    std::uint32_t index = 0;
    REQUIRE(driver.set_up_queue(index++, inflation.geometry()) == 1);
    REQUIRE(driver.set_up_queue(index++, deflation.geometry()) == 1);
    if ((features & kBalloonFeatureStats) != 0) {
      REQUIRE(driver.set_up_queue(index++, stats.geometry()) == 1);
    }
    if ((features & kBalloonFeatureReporting) != 0) {
      REQUIRE(driver.set_up_queue(index++, reporting.geometry()) == 1);
    }
    driver.drive();
    REQUIRE(driver.status() == (kNegotiated | kStatusDriverOk));
  }
  TransportDriver driver{device, ram.memory()};
};

TEST_CASE_FIXTURE(TransportGuest, "each set of features has its queues, and each queue its use") {
  for (const std::uint64_t features :
       {kFeatureVersion1, kFeatureVersion1 | kBalloonFeatureStats,
        kFeatureVersion1 | kBalloonFeatureReporting, kAll, kAll | kBalloonFeatureDeflateOnOom}) {
    CAPTURE(features);
    for (testing::DriverQueue* queue : {&inflation, &deflation, &stats, &reporting}) {
      queue->restart();
    }
    start(features);
    put_pages(std::vector<std::uint32_t>{kFree + 1});
    inflation.add({{kRequest, 4, false}});
    driver.transport.kick(0);
    CHECK(inflation.take_used());
    check_lost({kFree + 1});
    deflation.add({{kRequest, 4, false}});
    driver.transport.kick(1);
    CHECK(deflation.take_used());
    std::uint16_t index = 2;
    if ((features & kBalloonFeatureStats) != 0) {
      put_stats({{BalloonStatTag::kFreeMemory, 77}});
      stats.add({{kRequest, 10, false}});
      driver.transport.kick(index++);
      REQUIRE(device.stats());
      CHECK(device.stats()->free_memory == 77);
    }
    if ((features & kBalloonFeatureReporting) != 0) {
      reporting.add({{(kFree + 2) * kPage, kPage, true}});
      driver.transport.kick(index++);
      CHECK(reporting.take_used());
      check_lost({kFree + 2});
    }
    // Kicks of queues that are not there lead nowhere.
    for (; index < 8; ++index) {
      driver.transport.kick(index);
    }
    check_lost({});
    CHECK(driver.status() == (kNegotiated | kStatusDriverOk));
    CHECK(device.counters().errors == 0);
  }
}

TEST_CASE_FIXTURE(TransportGuest,
                  "a driver that leaves out a queue of its features needs a reset") {
  for (const std::uint64_t features :
       {kFeatureVersion1 | kBalloonFeatureStats, kFeatureVersion1 | kBalloonFeatureReporting}) {
    REQUIRE(driver.negotiate(features) == kNegotiated);
    REQUIRE(driver.set_up_queue(0, inflation.geometry()) == 1);
    REQUIRE(driver.set_up_queue(1, deflation.geometry()) == 1);
    driver.drive();
    CHECK((driver.status() & kStatusNeedsReset) != 0);
  }
  start(kAll);
}

TEST_CASE_FIXTURE(TransportGuest, "features that are not offered are not accepted") {
  for (const unsigned bit : {0U, 3U, 4U, 6U, 27U, 30U}) {
    CAPTURE(bit);
    CHECK(driver.negotiate(kFeatureVersion1 | (std::uint64_t{1} << bit)) != kNegotiated);
  }
}

TEST_CASE_FIXTURE(TransportGuest, "target and actual size meet in the registers") {
  device.set_target(12);  // before there is a driver
  start(kAll);
  CHECK(driver.read(kMmioConfig) == 12);
  CHECK(driver.read(kActual) == 0);
  driver.write(kActual, 5);
  CHECK(driver.read(kActual) == 5);
  CHECK(device.actual_pages() == 5);
  CHECK(driver.interrupts == 0);
  device.set_target(30);
  CHECK(driver.interrupts == 1);
  CHECK(driver.read(kMmioInterruptStatus) == kMmioInterruptConfig);
  CHECK(driver.read(kMmioConfig) == 30);
  driver.write(kMmioConfig, 1);  // not the driver's
  CHECK(driver.read(kMmioConfig) == 30);
  CHECK(device.target_pages() == 30);

  driver.write(kMmioStatus, 0);
  CHECK(driver.read(kActual) == 0);
  CHECK(driver.read(kMmioConfig) == 30);
  // A write without a driver is one of the next one's.
  driver.write(kActual, 0xffff'ffff);
  CHECK(device.actual_pages() == kPages);
}

TEST_CASE_FIXTURE(TransportGuest, "kicks before DRIVER_OK and after a reset lead nowhere") {
  put_pages(std::vector<std::uint32_t>{kFree + 1});
  inflation.add({{kRequest, 4, false}});
  driver.transport.kick(0);
  driver.negotiate(kAll);
  driver.transport.kick(0);
  check_lost({});
  start(kAll);
  stats.add({{kRequest, 4, false}});
  driver.transport.kick(2);
  driver.write(kMmioStatus, 0);
  for (std::uint16_t index = 0; index < 4; ++index) {
    driver.transport.kick(index);
  }
  check_lost({});
  CHECK(inflation.used_index() == 0);
  CHECK(stats.used_index() == 0);
}

}  // namespace
}  // namespace msb::virtio
