// SPDX-License-Identifier: Apache-2.0
// A device's configuration space, as its driver reads and writes it.
#include <doctest/doctest.h>

#include <cstdint>

#include "virtio/mmio_transport.hpp"
#include "virtio/testing/transport_fixture.hpp"

namespace msb::virtio {
namespace {

using testing::kNegotiated;
using testing::TransportFixture;

TEST_CASE_FIXTURE(TransportFixture,
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

TEST_CASE_FIXTURE(TransportFixture,
                  "a changed configuration has a new generation, shows and interrupts") {
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

TEST_CASE_FIXTURE(TransportFixture,
                  "a configuration that changed without a driver shows when the next one comes") {
  REQUIRE(driver.negotiate() == kNegotiated);
  driver.set_up_queue(0, first.geometry());
  driver.set_up_queue(1, second.geometry());
  device.configuration[1] = std::byte{0x77};
  driver.drive();
  CHECK(driver.read(kMmioConfig) == 0x04037701);
  // It may have read the configuration before.
  CHECK(driver.interrupts == 1);
  CHECK(driver.read(kMmioInterruptStatus) == kMmioInterruptConfig);
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

}  // namespace
}  // namespace msb::virtio
