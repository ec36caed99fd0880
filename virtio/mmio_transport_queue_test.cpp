// SPDX-License-Identifier: Apache-2.0
// The registers of queues, and what becomes of them at DRIVER_OK (hostile-input.md 1, 2, 24, 37).
#include <doctest/doctest.h>

#include <cstdint>
#include <utility>

#include "virtio/mmio_transport.hpp"
#include "virtio/testing/transport_fixture.hpp"

namespace msb::virtio {
namespace {

using testing::GuestRam;
using testing::kDriven;
using testing::kNegotiated;
using testing::kPage;
using testing::TransportFixture;

TEST_CASE_FIXTURE(TransportFixture,
                  "the ordinary sequence activates the device once, with what was negotiated") {
  REQUIRE(driver.negotiate(kFeatureVersion1 | 4) == kNegotiated);
  REQUIRE(driver.set_up_queue(0, first.geometry()) == 1);
  REQUIRE(driver.set_up_queue(1, second.geometry()) == 1);
  driver.drive();
  CHECK(driver.status() == kDriven);
  CHECK(device.log == "RA");
  CHECK(device.features_accepted == (kFeatureVersion1 | 4));
  REQUIRE(device.queues.size() == 2);
  driver.drive();
  driver.write(kMmioStatus, kDriven);
  CHECK(device.log == "RA");

  // The queues are those that were set up, in their order.
  second.add({{GuestRam::kStart + 4 * kPage, 8, true}});
  CHECK_FALSE(device.queues[0].pop()->has_value());
  CHECK(device.queues[1].pop()->has_value());
  driver.transport.kick(1);
  driver.transport.kick(0);
  CHECK(device.log == "RA10");
}

TEST_CASE_FIXTURE(TransportFixture,
                  "activation with a queue that is not ready needs a reset and says so") {
  REQUIRE(driver.negotiate() == kNegotiated);
  REQUIRE(driver.set_up_queue(0, first.geometry()) == 1);
  driver.drive();
  CHECK(driver.status() == (kDriven | kStatusNeedsReset));
  CHECK(driver.read(kMmioInterruptStatus) == kMmioInterruptConfig);
  CHECK(driver.interrupts == 1);
  CHECK(device.log == "R");
  driver.transport.kick(0);
  driver.drive();
  CHECK(device.log == "R");
  start();  // and works after the reset
}

TEST_CASE_FIXTURE(TransportFixture,
                  "a queue that the accepted features do not need may be left out") {
  device.second_queue_feature = 4;
  REQUIRE(driver.negotiate(kFeatureVersion1 | 1) == kNegotiated);
  REQUIRE(driver.set_up_queue(0, first.geometry()) == 1);
  driver.drive();
  CHECK(driver.status() == kDriven);
  CHECK(device.queues.size() == 1);
  driver.transport.kick(1);
  CHECK(driver.transport.kicks() == 0);
  driver.transport.kick(0);
  CHECK(device.log == "RA0");

  // Set up all the same, it is none.
  REQUIRE(driver.negotiate(kFeatureVersion1) == kNegotiated);
  REQUIRE(driver.set_up_queue(0, first.geometry()) == 1);
  REQUIRE(driver.set_up_queue(1, second.geometry()) == 1);
  driver.drive();
  CHECK(driver.status() == kDriven);
  CHECK(device.queues.size() == 1);
  driver.transport.kick(1);
  CHECK(device.log == "RA0RA");
}

TEST_CASE_FIXTURE(TransportFixture,
                  "a queue that the accepted features do need may not be left out") {
  device.second_queue_feature = 4;
  REQUIRE(driver.negotiate(kFeatureVersion1 | 4) == kNegotiated);
  REQUIRE(driver.set_up_queue(0, first.geometry()) == 1);
  driver.drive();
  CHECK(driver.status() == (kDriven | kStatusNeedsReset));
  CHECK_FALSE(device.active);
  // Nor is a later one taken for an earlier one.
  REQUIRE(driver.negotiate(kFeatureVersion1) == kNegotiated);
  REQUIRE(driver.set_up_queue(1, second.geometry()) == 1);
  driver.drive();
  CHECK(driver.status() == (kDriven | kStatusNeedsReset));
  CHECK_FALSE(device.active);

  REQUIRE(driver.negotiate(kFeatureVersion1 | 4) == kNegotiated);
  REQUIRE(driver.set_up_queue(0, first.geometry()) == 1);
  REQUIRE(driver.set_up_queue(1, second.geometry()) == 1);
  driver.drive();
  CHECK(driver.status() == kDriven);
  CHECK(device.queues.size() == 2);
}

TEST_CASE_FIXTURE(TransportFixture,
                  "a queue does not become ready with a geometry that cannot be used") {
  REQUIRE(driver.negotiate() == kNegotiated);
  const QueueGeometry good = first.geometry();
  const auto ready = [&](QueueGeometry geometry) { return driver.set_up_queue(0, geometry) == 1; };
  const auto with = [&](auto change) {
    QueueGeometry geometry = good;
    change(geometry);
    return geometry;
  };
  CHECK_FALSE(ready(with([](auto& g) { g.size = 0; })));
  CHECK_FALSE(ready(with([](auto& g) { g.size = 3; })));
  CHECK_FALSE(ready(with([](auto& g) { g.size = 16; })));  // more than the device's 8
  CHECK_FALSE(ready(with([](auto& g) { g.size = 32768; })));
  CHECK_FALSE(ready(with([](auto& g) { g.descriptors += 8; })));
  CHECK_FALSE(ready(with([](auto& g) { g.available += 1; })));
  CHECK_FALSE(ready(with([](auto& g) { g.used += 2; })));
  CHECK_FALSE(ready(with([](auto& g) { g.descriptors = 0; })));
  CHECK_FALSE(ready(with([](auto& g) { g.used = ~GuestAddress{3}; })));
  CHECK_FALSE(ready(with([&](auto& g) { g.available = ram.end() - 2; })));
  // A size that only fits after it is cut to 16 bits.
  driver.set_up_queue(0, with([](auto& g) { g.size = 0; }));
  for (const std::uint32_t size : {0x1'0008U, 0x8000'0008U, 0xffff'ffffU, 65536U}) {
    driver.write(kMmioQueueSize, size);
    driver.write(kMmioQueueReady, 1);
    CHECK(driver.read(kMmioQueueReady) == 0);
  }
  CHECK(ready(with([](auto& g) { g.size = 1; })));
  driver.write(kMmioQueueReady, 0);
  CHECK(driver.read(kMmioQueueReady) == 0);
  CHECK(ready(good));
}

TEST_CASE_FIXTURE(TransportFixture,
                  "what a ready queue is made of does not change, before or after DRIVER_OK") {
  REQUIRE(driver.negotiate() == kNegotiated);
  REQUIRE(driver.set_up_queue(0, first.geometry()) == 1);
  REQUIRE(driver.set_up_queue(1, second.geometry()) == 1);
  const auto spoil = [&] {
    for (const std::uint32_t queue : {0U, 1U}) {
      driver.write(kMmioQueueSel, queue);
      for (const std::uint64_t offset :
           {kMmioQueueSize, kMmioQueueDescLow, kMmioQueueDescHigh, kMmioQueueDriverLow,
            kMmioQueueDriverHigh, kMmioQueueDeviceLow, kMmioQueueDeviceHigh}) {
        driver.write(offset, 0xffff'fff0);
      }
      CHECK(driver.read(kMmioQueueReady) == 1);
    }
  };
  spoil();
  driver.drive();
  REQUIRE(driver.status() == kDriven);
  spoil();
  driver.write(kMmioQueueReady, 0);  // too late to take a queue away
  CHECK(driver.read(kMmioQueueReady) == 1);
  first.add({{GuestRam::kStart + 4 * kPage, 8, true}});
  auto chain = device.queues[0].pop();
  REQUIRE(chain);
  REQUIRE(*chain);
  device.queues[0].push(std::move(**chain), 3);
  CHECK(first.take_used()->length == 3);
}

TEST_CASE_FIXTURE(TransportFixture, "queues are not set up before FEATURES_OK") {
  driver.write(kMmioStatus, kStatusAcknowledge | kStatusDriver);
  CHECK(driver.set_up_queue(0, first.geometry()) == 0);
  driver.accept_features(kFeatureVersion1);
  driver.write(kMmioStatus, kNegotiated);
  driver.write(kMmioQueueReady, 1);
  CHECK(driver.read(kMmioQueueReady) == 0);  // nothing of it was kept
  CHECK(driver.set_up_queue(0, first.geometry()) == 1);
}

TEST_CASE_FIXTURE(TransportFixture,
                  "a selected queue that does not exist reads as absent and takes nothing") {
  REQUIRE(driver.negotiate() == kNegotiated);
  for (const std::uint32_t queue : {2U, 3U, 255U, 256U, 65535U, 65536U, 65537U, 0x7fff'ffffU,
                                    0x8000'0000U, 0x8000'0001U, 0xffff'fffeU, 0xffff'ffffU}) {
    CAPTURE(queue);
    CHECK(driver.set_up_queue(queue, first.geometry()) == 0);
    CHECK(driver.read(kMmioQueueSizeMax) == 0);
  }
  driver.write(kMmioQueueSel, 0);
  CHECK(driver.read(kMmioQueueReady) == 0);
  CHECK(driver.read(kMmioQueueSizeMax) == 8);
  driver.write(kMmioQueueSel, 1);
  CHECK(driver.read(kMmioQueueReady) == 0);
  CHECK(driver.read(kMmioQueueSizeMax) == 16);
}

TEST_CASE_FIXTURE(TransportFixture,
                  "kicks reach an active device only, and only for queues that exist") {
  driver.transport.kick(0);
  REQUIRE(driver.negotiate() == kNegotiated);
  driver.set_up_queue(0, first.geometry());
  driver.set_up_queue(1, second.geometry());
  driver.transport.kick(0);
  CHECK(device.log == "R");
  driver.drive();
  for (const std::uint32_t queue : {2U, 3U, 0x7fffU, 0x8000U, 0xffffU}) {
    driver.transport.kick(static_cast<std::uint16_t>(queue));
  }
  for (const std::uint32_t queue : {0U, 2U, 0x7fff'ffffU, 0xffff'ffffU}) {
    driver.write(kMmioQueueNotify, queue);  // kicks are eventfds; what reaches the register is none
  }
  CHECK(device.log == "RA");
  driver.transport.kick(1);
  CHECK(device.log == "RA1");
  driver.write(kMmioStatus, 0);
  driver.transport.kick(1);
  CHECK(device.log == "RA1R");
}

}  // namespace
}  // namespace msb::virtio
