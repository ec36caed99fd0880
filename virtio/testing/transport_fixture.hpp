// SPDX-License-Identifier: Apache-2.0
// A recording device behind a transport, with a driver and two queues for it.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>

#include "virtio/spec.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_device.hpp"
#include "virtio/testing/transport_driver.hpp"

namespace msb::virtio::testing {

// The status register, once features are settled and once the device is in use.
inline constexpr std::uint32_t kNegotiated = kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk;
inline constexpr std::uint32_t kDriven = kNegotiated | kStatusDriverOk;

struct TransportFixture {
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

}  // namespace msb::virtio::testing
