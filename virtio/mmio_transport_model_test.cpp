// SPDX-License-Identifier: Apache-2.0
// A random walk over the transport's registers beside a model of what section 4.2 and 3.1 say
// (hostile-input.md 1, 2, 24).
#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <iterator>
#include <random>

#include "virtio/mmio_transport.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_device.hpp"
#include "virtio/testing/transport_driver.hpp"
#include "virtio/testing/transport_model.hpp"

namespace msb::virtio {
namespace {

using testing::GuestRam;
using testing::RecordingDevice;
using testing::TransportDriver;
using testing::TransportModel;

// Values that make something happen often enough, and those that never should.
std::uint32_t pick_value(std::minstd_rand& random, std::uint64_t offset) {
  constexpr std::array<std::uint32_t, 8> kStatuses{0, 1, 3, 11, 15, 15, 11, 128};
  constexpr std::array<std::uint32_t, 8> kAddresses{0x10000, 0x10400, 0x10800, 0x11000,
                                                    0x10008, 0x1fff0, 0x20000, 0xffff'fff0};
  constexpr std::array<std::uint32_t, 8> kOdd{0, 1, 2, 4, 8, 16, 0x7fff'ffff, 0xffff'ffff};
  const auto from = [&](const auto& values) { return values[random() % values.size()]; };
  if (random() % 16 == 0) {
    return from(kOdd);
  }
  switch (offset) {
    case kMmioStatus:
      // Resets are rare, or nothing would ever get far.
      return random() % 8 == 0 ? from(kStatuses) : kStatuses[1 + random() % 5];
    case kMmioDriverFeatures:
      return random() % 4 == 0 ? from(kOdd) : 1;
    case kMmioDriverFeaturesSel:
    case kMmioDeviceFeaturesSel:
    case kMmioQueueSel:
      return random() % 2;
    case kMmioQueueReady:
      return random() % 8 == 0 ? 0 : 1;
    case kMmioQueueSize:
      return from(kOdd);
    case kMmioQueueDescHigh:
    case kMmioQueueDriverHigh:
    case kMmioQueueDeviceHigh:
      return random() % 8 == 0 ? 1 : 0;
    case kMmioQueueDescLow:
    case kMmioQueueDriverLow:
    case kMmioQueueDeviceLow:
      return from(kAddresses);
    default:
      return from(kOdd);
  }
}

TEST_CASE("a random walk over the registers reads what the model reads, at every step") {
  constexpr std::array kWritten{kMmioStatus,
                                kMmioStatus,
                                kMmioDeviceFeaturesSel,
                                kMmioDriverFeatures,
                                kMmioDriverFeaturesSel,
                                kMmioQueueSel,
                                kMmioQueueSize,
                                kMmioQueueReady,
                                kMmioQueueReady,
                                kMmioInterruptAck,
                                kMmioQueueDescLow,
                                kMmioQueueDescHigh,
                                kMmioQueueDriverLow,
                                kMmioQueueDriverHigh,
                                kMmioQueueDeviceLow,
                                kMmioQueueDeviceHigh,
                                kMmioQueueNotify,
                                kMmioConfig};
  GuestRam ram;
  RecordingDevice device;
  TransportDriver driver(device, ram.memory());
  TransportModel model;
  std::minstd_rand random(20240607);
  const auto write = [&](std::uint64_t offset, std::uint32_t value) {
    driver.write(offset, value);
    model.write(offset, std::as_bytes(std::span(&value, 1)));
  };
  int activations = 0;
  int failures = 0;
  for (int step = 0; step < 300'000; ++step) {
    const bool was_active = model.active;
    const bool needed_reset = (model.status & 64) != 0;
    const std::uint32_t action = random() % 32;
    if (action == 0) {
      const std::string log = device.log;
      const auto queue = static_cast<std::uint16_t>(random() % 4);
      driver.transport.kick(queue);
      const bool heard = model.active && (model.status & 64) == 0 && queue < 2;
      if (device.log.size() != log.size() + (heard ? 1 : 0)) {
        FAIL("step ", step, ": a kick of queue ", queue,
             " was heard when it should not, or the other way round");
      }
    } else if (action == 1 && model.active) {
      device.driver->used_buffers();
      model.interrupts |= 1;
    } else if (action == 2 && model.active && random() % 8 == 0) {
      device.driver->needs_reset();
      if ((model.status & 64) == 0) {
        model.need_reset();
      }
    } else if (action == 3 && random() % 4 == 0) {  // what chance alone seldom does: a negotiation
      write(kMmioStatus, 0);
      write(kMmioDriverFeaturesSel, 1);
      write(kMmioDriverFeatures, 1);
      write(kMmioStatus, 11);
    } else if (action < 8) {  // and a queue whose registers agree
      write(kMmioQueueSel, action % 2);
      write(kMmioQueueSize, 8);
      for (std::uint32_t part = 0; part < 3; ++part) {
        write(kMmioQueueDescLow + 16 * part, 0x10000 + 0x1000 * action + 0x400 * part);
        write(kMmioQueueDescHigh + 16 * part, 0);
      }
      write(kMmioQueueReady, 1);
    } else {
      const std::uint64_t offset = kWritten[random() % kWritten.size()];
      write(offset, pick_value(random, offset));
    }
    activations += !was_active && model.active ? 1 : 0;
    failures += !needed_reset && (model.status & 64) != 0 ? 1 : 0;

    for (std::uint64_t offset = 0; offset < kMmioConfig; offset += 4) {
      const std::uint32_t got = driver.read(offset);
      if (got != model.read(offset)) {
        FAIL("step ", step, ": register ", offset, " reads ", got, " where the model has ",
             model.read(offset));
      }
    }
    if (device.active != model.active) {
      FAIL("step ", step, ": the device is active when it should not be, or the other way round");
    }
    if (!was_active && model.active && device.features_accepted != model.features) {
      FAIL("step ", step, ": the device was activated with other features");
    }
    if (device.log.size() > 1024) {
      device.log.clear();
    }
  }
  MESSAGE(activations, " activations, ", failures, " times NEEDS_RESET");
  CHECK(activations > 100);
  CHECK(failures > 100);
}

}  // namespace
}  // namespace msb::virtio
