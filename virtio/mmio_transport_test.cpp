// SPDX-License-Identifier: Apache-2.0
// The register window and the state machine of a device (hostile-input.md 23, 24).
#include "virtio/mmio_transport.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "virtio/testing/transport_fixture.hpp"

namespace msb::virtio {
namespace {

using testing::kDriven;
using testing::kNegotiated;
using testing::RecordingDevice;
using testing::TransportFixture;

TEST_CASE_FIXTURE(TransportFixture, "the identifying registers say what the device is") {
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

TEST_CASE_FIXTURE(TransportFixture,
                  "the page that a guest may have mapped is current without a read") {
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
  CHECK(shown(kMmioDeviceFeatures) == 0x3000'0005);
}

TEST_CASE_FIXTURE(TransportFixture,
                  "features are offered in two words with VERSION_1, and nothing beyond") {
  CHECK(driver.read(kMmioDeviceFeatures) == 0x3000'0005);
  driver.write(kMmioDeviceFeaturesSel, 1);
  CHECK(driver.read(kMmioDeviceFeatures) == (1 | 8));
  for (const std::uint32_t beyond :
       {2U, 3U, 31U, 32U, 64U, 0x7fff'ffffU, 0x8000'0000U, 0xffff'ffffU}) {
    driver.write(kMmioDeviceFeaturesSel, beyond);
    CHECK(driver.read(kMmioDeviceFeatures) == 0);
  }
}

TEST_CASE_FIXTURE(
    TransportFixture,
    "accesses of any width at any offset of the window are answered within their bytes") {
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

TEST_CASE_FIXTURE(TransportFixture, "writes that no register takes change nothing") {
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

TEST_CASE_FIXTURE(
    TransportFixture,
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

TEST_CASE_FIXTURE(
    TransportFixture,
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

TEST_CASE_FIXTURE(TransportFixture,
                  "FEATURES_OK reads back only for an offered set with VERSION_1") {
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

TEST_CASE_FIXTURE(TransportFixture,
                  "FEATURES_OK is refused before DRIVER, and can be asked for again") {
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

TEST_CASE_FIXTURE(TransportFixture, "features are settled once FEATURES_OK is set") {
  REQUIRE(driver.negotiate(kFeatureVersion1 | 1) == kNegotiated);
  driver.accept_features(~std::uint64_t{0});
  driver.set_up_queue(0, first.geometry());
  driver.set_up_queue(1, second.geometry());
  driver.drive();
  REQUIRE(device.active);
  driver.accept_features(~std::uint64_t{0});
  CHECK(device.features_accepted == (kFeatureVersion1 | 1));
}

TEST_CASE_FIXTURE(TransportFixture,
                  "feature words beyond the second are not taken for one of the two") {
  for (const std::uint32_t word : {2U, 32U, 0x8000'0000U, 0xffff'ffffU}) {
    driver.write(kMmioDriverFeaturesSel, word);
    driver.write(kMmioDriverFeatures, 0xffff'ffff);
  }
  driver.write(kMmioDriverFeaturesSel, 1);
  driver.write(kMmioDriverFeatures, 1);
  driver.write(kMmioStatus, kNegotiated);
  CHECK(driver.status() == kNegotiated);
}

TEST_CASE_FIXTURE(TransportFixture,
                  "DRIVER_OK does nothing before FEATURES_OK has been read back") {
  driver.write(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusDriverOk);
  CHECK(driver.status() == (kStatusAcknowledge | kStatusDriver));
  driver.accept_features(kFeatureVersion1);
  driver.write(kMmioStatus, kDriven);  // both at once
  CHECK(driver.status() == kNegotiated);
  CHECK(device.log.empty());
}

TEST_CASE_FIXTURE(TransportFixture, "DRIVER_OK after FAILED starts nothing") {
  REQUIRE(driver.negotiate() == kNegotiated);
  driver.set_up_queue(0, first.geometry());
  driver.set_up_queue(1, second.geometry());
  driver.write(kMmioStatus, kStatusFailed);
  driver.drive();
  CHECK_FALSE(device.active);
  CHECK(driver.status() == (kNegotiated | kStatusFailed));
}

TEST_CASE_FIXTURE(TransportFixture, "interrupt causes collect until they are acknowledged") {
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

TEST_CASE_FIXTURE(TransportFixture,
                  "a device that needs a reset is kicked no more until it had one") {
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

TEST_CASE_FIXTURE(TransportFixture, "a reset in every state ends in the same initial state") {
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
    CHECK(driver.read(kMmioDeviceFeatures) == 0x3000'0005);  // word 0 again
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

TEST_CASE_FIXTURE(TransportFixture, "the driver reads status 0 only when the device has let go") {
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

TEST_CASE_FIXTURE(TransportFixture,
                  "interrupts from several threads are pulses one after the other") {
  start();
  std::atomic<int> inside = 0;
  std::atomic<int> most = 0;
  driver.on_interrupt = [&] {
    most = std::max<int>(most, ++inside);
    std::this_thread::yield();
    --inside;
  };
  constexpr int kEach = 2000;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kEach; ++n) {
        device.driver->used_buffers();
      }
    });
  }
  threads.clear();
  CHECK(most == 1);
  CHECK(driver.interrupts == 3 * kEach);
}

}  // namespace
}  // namespace msb::virtio
