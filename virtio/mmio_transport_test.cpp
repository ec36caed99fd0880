// SPDX-License-Identifier: Apache-2.0
// The register window and the state machine of a device (hostile-input.md 1, 2, 23, 24, 37).
#include "virtio/mmio_transport.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_device.hpp"
#include "virtio/testing/transport_driver.hpp"

namespace msb::virtio {
namespace {

using testing::DriverQueue;
using testing::GuestRam;
using testing::kPage;
using testing::RecordingDevice;
using testing::TransportDriver;

constexpr std::uint32_t kNegotiated = kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk;
constexpr std::uint32_t kDriven = kNegotiated | kStatusDriverOk;

struct Fixture {
  GuestRam ram;
  RecordingDevice device;
  TransportDriver driver{device, ram.memory()};
  DriverQueue first{ram, GuestRam::kStart, 8};
  DriverQueue second{ram, GuestRam::kStart + kPage, 16};

  void start() {
    REQUIRE(driver.negotiate() == kNegotiated);
    REQUIRE(driver.set_up_queue(0, first.geometry()) == 1);
    REQUIRE(driver.set_up_queue(1, second.geometry()) == 1);
    driver.drive();
    REQUIRE(driver.status() == kDriven);
    REQUIRE(device.active);
  }
};

TEST_CASE_FIXTURE(Fixture, "the identifying registers say what the device is") {
  CHECK(driver.read(kMmioMagicValue) == 0x74726976);
  CHECK(driver.read(kMmioVersion) == 2);
  CHECK(driver.read(kMmioDeviceId) == RecordingDevice::kType);
  CHECK(driver.read(kMmioVendorId) == kMmioVendor);
  CHECK(driver.read(kMmioConfigGeneration) == 0);
  CHECK(driver.read(kMmioStatus) == 0);
  CHECK(driver.read(kMmioInterruptStatus) == 0);
  CHECK(driver.read(kMmioShmLenLow) == 0xffff'ffff);
  CHECK(driver.read(kMmioShmLenHigh) == 0xffff'ffff);
}

TEST_CASE_FIXTURE(Fixture, "the page that a guest may have mapped is current without a read") {
  const auto shown = [&](std::uint64_t offset) {
    std::uint32_t value = 0;
    std::memcpy(&value, driver.page.data() + offset, sizeof value);
    return value;
  };
  CHECK(shown(kMmioMagicValue) == kMmioMagic);
  start();
  CHECK(shown(kMmioStatus) == kDriven);
  driver.write(kMmioQueueSel, 0);
  CHECK(shown(kMmioQueueSizeMax) == 8);
  driver.write(kMmioQueueSel, 1);
  CHECK(shown(kMmioQueueSizeMax) == 16);
  CHECK(shown(kMmioQueueReady) == 1);
  driver.write(kMmioDeviceFeaturesSel, 1);
  CHECK(shown(kMmioDeviceFeatures) == (1 | 8));
  device.driver->used_buffers();
  CHECK(shown(kMmioInterruptStatus) == kMmioInterruptUsedBuffer);
  device.driver->needs_reset();
  CHECK(shown(kMmioInterruptStatus) == (kMmioInterruptUsedBuffer | kMmioInterruptConfig));
  CHECK(shown(kMmioStatus) == (kDriven | kStatusNeedsReset));
  driver.write(kMmioInterruptAck, kMmioInterruptUsedBuffer | kMmioInterruptConfig);
  CHECK(shown(kMmioInterruptStatus) == 0);
  driver.write(kMmioStatus, 0);
  CHECK(shown(kMmioStatus) == 0);
  CHECK(shown(kMmioQueueReady) == 0);
  CHECK(shown(kMmioDeviceFeatures) == 0x1000'0005);
}

TEST_CASE_FIXTURE(Fixture, "features are offered in two words with VERSION_1, and nothing beyond") {
  CHECK(driver.read(kMmioDeviceFeatures) == 0x1000'0005);
  driver.write(kMmioDeviceFeaturesSel, 1);
  CHECK(driver.read(kMmioDeviceFeatures) == (1 | 8));
  for (const std::uint32_t beyond :
       {2U, 3U, 31U, 32U, 64U, 0x7fff'ffffU, 0x8000'0000U, 0xffff'ffffU}) {
    driver.write(kMmioDeviceFeaturesSel, beyond);
    CHECK(driver.read(kMmioDeviceFeatures) == 0);
  }
}

TEST_CASE_FIXTURE(
    Fixture, "accesses of any width at any offset of the window are answered within their bytes") {
  start();
  std::size_t registers = 0;
  for (std::uint64_t offset = 0; offset < kMmioSize + 16; ++offset) {
    for (std::size_t width = 0; width <= 16; ++width) {
      std::vector<std::byte> data(width, std::byte{0xee});
      driver.transport.read(offset, data);
      bool any = false;
      for (std::size_t i = 0; i < width; ++i) {
        const std::uint64_t at = offset + i;
        if (offset >= kMmioConfig) {
          // Configuration: any part of it, and zeros behind it.
          const std::uint64_t field = at - kMmioConfig;
          const auto expected =
              field < device.configuration.size() ? device.configuration[field] : std::byte{0};
          if (data[i] != expected) {
            FAIL("configuration byte ", field, " read with width ", width, " at ", offset,
                 " is wrong");
          }
        }
        any = any || data[i] != std::byte{0};
      }
      if (offset < kMmioConfig && any) {
        ++registers;
        if (width != 4 || offset % 4 != 0) {
          FAIL("a register answered to width ", width, " at ", offset);
        }
      }
    }
  }
  CHECK(registers ==
        12);  // magic, version, id, vendor, features, size, ready, status and the shared memory's
}

TEST_CASE_FIXTURE(Fixture, "writes that no register takes change nothing") {
  start();
  const std::string log = device.log;
  for (std::uint64_t offset = 0; offset < kMmioSize + 16; ++offset) {
    for (std::size_t width = 0; width <= 16; ++width) {
      const bool in_config =
          offset >= kMmioConfig && offset + width <= kMmioConfig + device.configuration.size();
      if ((width == 4 && offset % 4 == 0 && offset < kMmioConfig) || in_config) {
        continue;
      }
      driver.transport.write(
          offset, std::vector<std::byte>(width));  // zeros: a reset, were it the status register
      driver.transport.write(offset, std::vector<std::byte>(width, std::byte{0xff}));
    }
  }
  CHECK(driver.status() == kDriven);
  CHECK(device.log == log);
  CHECK(driver.interrupts == 0);
  CHECK(device.configuration[0] == std::byte{1});
}

TEST_CASE_FIXTURE(Fixture,
                  "what the driver writes into the configuration space is the device's to judge") {
  start();
  const std::uint32_t generation = driver.read(kMmioConfigGeneration);
  driver.write(kMmioConfig, 0x0a0b0c0d);
  CHECK(device.configuration[0] == std::byte{0x0d});
  CHECK(device.configuration[3] == std::byte{0x0a});
  CHECK(driver.read(kMmioConfig) == 0x0a0b0c0d);
  CHECK(driver.read(kMmioConfigGeneration) != generation);
  CHECK(driver.interrupts == 0);  // it knows
}

TEST_CASE_FIXTURE(Fixture, "a changed configuration has a new generation, shows and interrupts") {
  start();
  const std::uint32_t generation = driver.read(kMmioConfigGeneration);
  device.configuration[1] = std::byte{0x77};
  CHECK(driver.read(kMmioConfig) == 0x04030201);
  device.driver->config_changed();
  CHECK(driver.read(kMmioConfig) == 0x04037701);
  CHECK(driver.read(kMmioConfigGeneration) != generation);
  CHECK(driver.interrupts == 1);
  CHECK(driver.transport.interrupts() == 1);
  CHECK(driver.read(kMmioInterruptStatus) == kMmioInterruptConfig);
  driver.write(kMmioInterruptAck, kMmioInterruptConfig);
  CHECK(driver.read(kMmioInterruptStatus) == 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "a configuration that changed without a driver shows when the next one comes") {
  REQUIRE(driver.negotiate() == kNegotiated);
  driver.set_up_queue(0, first.geometry());
  driver.set_up_queue(1, second.geometry());
  device.configuration[1] = std::byte{0x77};
  driver.drive();
  CHECK(driver.read(kMmioConfig) == 0x04037701);
  CHECK(driver.interrupts == 0);
  // A device forgets in a reset what the driver wrote, which shows with status 0, also when the
  // reset takes its time.
  driver.write(kMmioConfig, 0x0a0b0c0d);
  device.slow = true;
  driver.wait = [&] {
    device.configuration[0] = std::byte{0};
    device.reset_done();
  };
  driver.write(kMmioStatus, 0);
  CHECK(driver.read(kMmioConfig) == 0x0a0b0c00);
}

TEST_CASE_FIXTURE(
    Fixture,
    "registers for reading only are not written, and those for writing only read as zero") {
  for (std::uint64_t offset = 0; offset < kMmioConfig; offset += 4) {
    CAPTURE(offset);
    switch (offset) {
      case kMmioDriverFeatures:
      case kMmioDriverFeaturesSel:
      case kMmioDeviceFeaturesSel:
      case kMmioQueueSel:
      case kMmioQueueSize:
      case kMmioQueueNotify:
      case kMmioInterruptAck:
      case kMmioQueueDescLow:
      case kMmioQueueDescHigh:
      case kMmioQueueDriverLow:
      case kMmioQueueDriverHigh:
      case kMmioQueueDeviceLow:
      case kMmioQueueDeviceHigh:
        driver.write(offset, 0x1234'5678);
        CHECK(driver.read(offset) == 0);
        driver.write(offset, 0);
        break;
      case kMmioStatus:
        break;
      default: {
        const std::uint32_t before = driver.read(offset);
        driver.write(offset, 0x1234'5678);
        CHECK(driver.read(offset) == before);
        break;
      }
    }
  }
}

TEST_CASE_FIXTURE(Fixture,
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

TEST_CASE_FIXTURE(
    Fixture,
    "status bits are only ever added, and those of the device are not the driver's to set") {
  driver.write(kMmioStatus, kStatusAcknowledge);
  driver.write(kMmioStatus, kStatusDriver);  // without the bit before
  CHECK(driver.status() == (kStatusAcknowledge | kStatusDriver));
  driver.write(kMmioStatus, kStatusNeedsReset | 16 | 32 | 0xffff'ff00);
  CHECK(driver.status() == (kStatusAcknowledge | kStatusDriver));
  driver.write(kMmioStatus, 0x100);  // not zero: no reset
  CHECK(driver.status() == (kStatusAcknowledge | kStatusDriver));
  CHECK(device.log.empty());
  driver.write(kMmioStatus, kStatusFailed);
  CHECK(driver.status() == (kStatusAcknowledge | kStatusDriver | kStatusFailed));
  driver.write(kMmioStatus, 0);
  CHECK(driver.status() == 0);
}

TEST_CASE_FIXTURE(Fixture, "FEATURES_OK reads back only for an offered set with VERSION_1") {
  constexpr std::uint64_t kOffered =
      RecordingDevice::kFeatures | Queue::kFeatures | kFeatureVersion1;
  const auto accepted = [&](std::uint64_t features) {
    return driver.negotiate(features) == kNegotiated;
  };
  CHECK(accepted(kOffered));
  CHECK(accepted(kFeatureVersion1));
  CHECK_FALSE(accepted(0));
  CHECK_FALSE(accepted(RecordingDevice::kFeatures));
  for (int bit = 0; bit < 64; ++bit) {
    CAPTURE(bit);
    const std::uint64_t feature = std::uint64_t{1} << bit;
    CHECK(accepted(kFeatureVersion1 | feature) == ((kOffered & feature) != 0));
  }
}

TEST_CASE_FIXTURE(Fixture, "FEATURES_OK is refused before DRIVER, and can be asked for again") {
  driver.accept_features(kFeatureVersion1);
  driver.write(kMmioStatus, kStatusAcknowledge | kStatusFeaturesOk);
  CHECK(driver.status() == kStatusAcknowledge);
  driver.accept_features(kFeatureVersion1 | 2);
  driver.write(kMmioStatus, kStatusDriver | kStatusFeaturesOk);
  CHECK(driver.status() == (kStatusAcknowledge | kStatusDriver));
  driver.accept_features(kFeatureVersion1);
  driver.write(kMmioStatus, kNegotiated);
  CHECK(driver.status() == kNegotiated);
}

TEST_CASE_FIXTURE(Fixture, "features are settled once FEATURES_OK is set") {
  REQUIRE(driver.negotiate(kFeatureVersion1 | 1) == kNegotiated);
  driver.accept_features(~std::uint64_t{0});
  driver.set_up_queue(0, first.geometry());
  driver.set_up_queue(1, second.geometry());
  driver.drive();
  REQUIRE(device.active);
  driver.accept_features(~std::uint64_t{0});
  CHECK(device.features_accepted == (kFeatureVersion1 | 1));
}

TEST_CASE_FIXTURE(Fixture, "feature words beyond the second are not taken for one of the two") {
  for (const std::uint32_t word : {2U, 32U, 0x8000'0000U, 0xffff'ffffU}) {
    driver.write(kMmioDriverFeaturesSel, word);
    driver.write(kMmioDriverFeatures, 0xffff'ffff);
  }
  driver.write(kMmioDriverFeaturesSel, 1);
  driver.write(kMmioDriverFeatures, 1);
  driver.write(kMmioStatus, kNegotiated);
  CHECK(driver.status() == kNegotiated);
}

TEST_CASE_FIXTURE(Fixture, "DRIVER_OK does nothing before FEATURES_OK has been read back") {
  driver.write(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusDriverOk);
  CHECK(driver.status() == (kStatusAcknowledge | kStatusDriver));
  driver.accept_features(kFeatureVersion1);
  driver.write(kMmioStatus, kDriven);  // both at once
  CHECK(driver.status() == kNegotiated);
  CHECK(device.log.empty());
}

TEST_CASE_FIXTURE(Fixture, "DRIVER_OK after FAILED starts nothing") {
  REQUIRE(driver.negotiate() == kNegotiated);
  driver.set_up_queue(0, first.geometry());
  driver.set_up_queue(1, second.geometry());
  driver.write(kMmioStatus, kStatusFailed);
  driver.drive();
  CHECK_FALSE(device.active);
  CHECK(driver.status() == (kNegotiated | kStatusFailed));
}

TEST_CASE_FIXTURE(Fixture, "activation with a queue that is not ready needs a reset and says so") {
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

TEST_CASE_FIXTURE(Fixture, "a queue that the accepted features do not need may be left out") {
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

TEST_CASE_FIXTURE(Fixture, "a queue that the accepted features do need may not be left out") {
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

TEST_CASE_FIXTURE(Fixture, "a queue does not become ready with a geometry that cannot be used") {
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

TEST_CASE_FIXTURE(Fixture,
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

TEST_CASE_FIXTURE(Fixture, "queues are not set up before FEATURES_OK") {
  driver.write(kMmioStatus, kStatusAcknowledge | kStatusDriver);
  CHECK(driver.set_up_queue(0, first.geometry()) == 0);
  driver.accept_features(kFeatureVersion1);
  driver.write(kMmioStatus, kNegotiated);
  driver.write(kMmioQueueReady, 1);
  CHECK(driver.read(kMmioQueueReady) == 0);  // nothing of it was kept
  CHECK(driver.set_up_queue(0, first.geometry()) == 1);
}

TEST_CASE_FIXTURE(Fixture,
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

TEST_CASE_FIXTURE(Fixture, "kicks reach an active device only, and only for queues that exist") {
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

TEST_CASE_FIXTURE(Fixture, "interrupt causes collect until they are acknowledged") {
  start();
  device.driver->used_buffers();
  CHECK(driver.read(kMmioInterruptStatus) == kMmioInterruptUsedBuffer);
  device.driver->needs_reset();
  CHECK(driver.read(kMmioInterruptStatus) == (kMmioInterruptUsedBuffer | kMmioInterruptConfig));
  CHECK(driver.interrupts == 2);
  CHECK(driver.status() == (kDriven | kStatusNeedsReset));
  device.driver->needs_reset();  // it knows already
  CHECK(driver.interrupts == 2);
  driver.write(kMmioInterruptAck, kMmioInterruptUsedBuffer);
  CHECK(driver.read(kMmioInterruptStatus) == kMmioInterruptConfig);
  driver.write(kMmioInterruptAck, 0xffff'ffff);
  CHECK(driver.read(kMmioInterruptStatus) == 0);
}

TEST_CASE_FIXTURE(Fixture, "a device that needs a reset is kicked no more until it had one") {
  start();
  device.log.clear();
  device.driver->needs_reset();
  driver.transport.kick(0);
  driver.write(kMmioStatus, kDriven);
  CHECK(device.log.empty());
  CHECK(driver.status() == (kDriven | kStatusNeedsReset));
  start();
  driver.transport.kick(0);
  CHECK(device.log == "RA0");
  CHECK(driver.read(kMmioInterruptStatus) == 0);
}

TEST_CASE_FIXTURE(Fixture, "a reset in every state ends in the same initial state") {
  const std::vector<std::function<void()>> states{
      [] {},
      [&] { driver.write(kMmioStatus, kStatusAcknowledge); },
      [&] { driver.write(kMmioStatus, kStatusAcknowledge | kStatusDriver); },
      [&] { driver.accept_features(kFeatureVersion1); },
      [&] { driver.negotiate(); },
      [&] {
        driver.negotiate();
        driver.set_up_queue(1, second.geometry());
      },
      [&] {
        driver.negotiate();
        driver.drive();  // no queue is ready
      },
      [&] { start(); },
      [&] {
        start();
        device.driver->used_buffers();
      },
      [&] {
        start();
        device.driver->needs_reset();
      },
      [&] { driver.write(kMmioStatus, kStatusFailed); },
  };
  for (std::size_t i = 0; i < states.size(); ++i) {
    CAPTURE(i);
    states[i]();
    driver.write(kMmioDeviceFeaturesSel, 1);
    driver.write(kMmioQueueSel, 1);
    driver.write(kMmioStatus, 0);
    CHECK(driver.status() == 0);
    CHECK(driver.read(kMmioInterruptStatus) == 0);
    CHECK(driver.read(kMmioDeviceFeatures) == 0x1000'0005);  // word 0 again
    CHECK(driver.read(kMmioQueueSizeMax) == 8);              // queue 0 again
    CHECK_FALSE(device.active);
    driver.write(kMmioStatus, kNegotiated);  // no features were kept
    CHECK(driver.status() == (kStatusAcknowledge | kStatusDriver));
    driver.write(kMmioStatus, 0);
    for (const std::uint32_t queue : {0U, 1U}) {
      driver.negotiate();
      driver.write(kMmioQueueSel, queue);
      CHECK(driver.read(kMmioQueueReady) == 0);
      driver.write(kMmioQueueReady, 1);  // no address was kept
      CHECK(driver.read(kMmioQueueReady) == 0);
    }
    start();
    driver.write(kMmioStatus, 0);
  }
}

TEST_CASE_FIXTURE(Fixture, "the driver reads status 0 only when the device has let go") {
  start();
  device.slow = true;
  bool waited = false;
  driver.wait = [&] {
    // The device is still at it: a second processor of the guest sees no 0, and kicks lead nowhere.
    CHECK(driver.status() == kDriven);
    driver.transport.kick(0);
    CHECK(device.log == "RAR");
    waited = true;
    device.reset_done();
  };
  driver.write(kMmioStatus, 0);
  CHECK(waited);
  CHECK(driver.status() == 0);
  device.slow = false;
  start();
}

TEST_CASE_FIXTURE(Fixture,
                  "kicks of a paused device wait, and all queues are looked at when it goes on") {
  start();
  device.log.clear();
  bool paused = false;
  driver.transport.pause([&] { paused = true; });
  CHECK(paused);
  driver.transport.kick(1);
  CHECK(device.log == "P");
  driver.transport.resume();
  CHECK(device.log == "PC01");
  driver.transport.kick(1);
  CHECK(device.log == "PC011");
}

TEST_CASE_FIXTURE(Fixture, "a device that is not active pauses and goes on without its queues") {
  driver.transport.pause([] {});
  driver.transport.resume();
  CHECK(device.log == "PC");
}

TEST_CASE_FIXTURE(Fixture, "accesses are counted by register, and the configuration space as one") {
  const auto index = [](std::uint64_t offset) { return static_cast<std::size_t>(offset / 4); };
  constexpr std::size_t kConfig = MmioTransport::kRegisters - 1;
  const auto status = driver.transport.reads(index(kMmioStatus));
  static_cast<void>(driver.read(kMmioStatus));
  static_cast<void>(driver.read(kMmioStatus));
  driver.write(kMmioQueueSel, 1);
  static_cast<void>(driver.read(kMmioConfig));
  static_cast<void>(driver.read(kMmioConfig + 4));
  static_cast<void>(driver.read(kMmioSize - 4));
  CHECK(driver.transport.reads(index(kMmioStatus)) == status + 2);
  CHECK(driver.transport.writes(index(kMmioQueueSel)) == 1);
  CHECK(driver.transport.reads(kConfig) == 3);
  CHECK(driver.transport.writes(kConfig) == 0);
}

}  // namespace
}  // namespace msb::virtio
