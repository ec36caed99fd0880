// SPDX-License-Identifier: Apache-2.0
// A device at rest, and the counters of the registers.
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>

#include "virtio/mmio_transport.hpp"
#include "virtio/testing/transport_fixture.hpp"

namespace msb::virtio {
namespace {

using testing::TransportFixture;

TEST_CASE_FIXTURE(TransportFixture,
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

TEST_CASE_FIXTURE(TransportFixture,
                  "a device that is not active pauses and goes on without its queues") {
  driver.transport.pause([] {});
  driver.transport.resume();
  CHECK(device.log == "PC");
}

TEST_CASE_FIXTURE(TransportFixture,
                  "accesses are counted by register, and the configuration space as one") {
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
