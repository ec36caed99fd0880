// SPDX-License-Identifier: Apache-2.0
// The driver that walks a transport through section 3.1.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>

#include "virtio/mmio_transport.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio::testing {

class TransportDriver {
 public:
  TransportDriver(Device& device, const GuestMemory& memory)
      : transport(
            device, memory, page,
            [this](const std::function<void(std::function<void()>)>& step) {
              bool done = false;
              step([&] { done = true; });
              if (!done && wait) {
                wait();
              }
              require(done, "a step on the device's thread ends");
            },
            [this] {
              ++interrupts;
              if (on_interrupt) {
                on_interrupt();
              }
            },
            [this](std::uint16_t) { ++kicks_later; }) {}

  [[nodiscard]] std::uint32_t read(std::uint64_t offset) {
    std::array<std::byte, 4> data{};
    transport.read(offset, data);
    std::uint32_t value = 0;
    std::memcpy(&value, data.data(), sizeof value);
    return value;
  }
  void write(std::uint64_t offset, std::uint32_t value) {
    transport.write(offset, std::as_bytes(std::span(&value, 1)));
  }
  [[nodiscard]] std::uint32_t status() { return read(kMmioStatus); }

  void accept_features(std::uint64_t features) {
    write(kMmioDriverFeaturesSel, 1);
    write(kMmioDriverFeatures, static_cast<std::uint32_t>(features >> 32));
    write(kMmioDriverFeaturesSel, 0);
    write(kMmioDriverFeatures, static_cast<std::uint32_t>(features));
  }
  // 3.1.1 steps 1 to 6; gives the status that reads back.
  std::uint32_t negotiate(std::uint64_t features = kFeatureVersion1) {
    write(kMmioStatus, 0);
    write(kMmioStatus, kStatusAcknowledge);
    write(kMmioStatus, kStatusAcknowledge | kStatusDriver);
    accept_features(features);
    write(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
    return status();
  }
  // 4.2.3.2; gives what QueueReady reads back.
  std::uint32_t set_up_queue(std::uint32_t index, const QueueGeometry& geometry) {
    write(kMmioQueueSel, index);
    write(kMmioQueueSize, geometry.size);
    write(kMmioQueueDescLow, static_cast<std::uint32_t>(geometry.descriptors));
    write(kMmioQueueDescHigh, static_cast<std::uint32_t>(geometry.descriptors >> 32));
    write(kMmioQueueDriverLow, static_cast<std::uint32_t>(geometry.available));
    write(kMmioQueueDriverHigh, static_cast<std::uint32_t>(geometry.available >> 32));
    write(kMmioQueueDeviceLow, static_cast<std::uint32_t>(geometry.used));
    write(kMmioQueueDeviceHigh, static_cast<std::uint32_t>(geometry.used >> 32));
    write(kMmioQueueReady, 1);
    return read(kMmioQueueReady);
  }
  void drive() { write(kMmioStatus, status() | kStatusDriverOk); }

  int interrupts = 0;
  std::function<void()> on_interrupt;
  int kicks_later = 0;
  std::function<void()> wait;  // what a vCPU that waits for the device lets happen
  alignas(std::uint32_t) std::array<std::byte, kMmioSize> page{};
  MmioTransport transport;
};

}  // namespace msb::virtio::testing
