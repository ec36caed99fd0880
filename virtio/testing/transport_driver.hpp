// SPDX-License-Identifier: Apache-2.0
// A device that records its life, and the driver that walks its transport through section 3.1.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "virtio/mmio_transport.hpp"
#include "virtio/testing/guest_ram.hpp"

namespace msb::virtio::testing {

class RecordingDevice final : public Device {
 public:
  static constexpr std::uint32_t kType = 42;
  static constexpr std::uint64_t kFeatures = (std::uint64_t{1} << 35) | 0x5;

  [[nodiscard]] std::uint32_t type() const override { return kType; }
  [[nodiscard]] std::uint64_t features() const override { return kFeatures; }
  [[nodiscard]] std::span<const std::uint16_t> max_queue_sizes() const override { return sizes; }
  [[nodiscard]] std::size_t queues_needed(std::uint64_t features) const override {
    return (features & second_queue_feature) == second_queue_feature ? 2 : 1;
  }
  [[nodiscard]] std::span<const std::byte> config() const override { return configuration; }

  void write_config(std::size_t offset, std::span<const std::byte> data) override {
    std::ranges::copy(data, configuration.begin() + static_cast<std::ptrdiff_t>(offset));
  }

  void activate(std::vector<Queue> activated, std::uint64_t accepted,
                DriverNotifier& notifier) override {
    log += 'A';
    queues = std::move(activated);
    features_accepted = accepted;
    driver = &notifier;
    active = true;
  }
  void on_queue(std::uint16_t index) override {
    CHECK(active);
    log += std::to_string(index);
  }
  void reset(std::function<void()> done) override {
    log += 'R';
    active = false;
    driver = nullptr;
    for (Queue& queue : queues) {
      queue.close();
    }
    queues.clear();
    if (slow) {
      reset_done = std::move(done);
    } else {
      done();
    }
  }

  void pause(std::function<void()> done) override {
    log += 'P';
    done();
  }
  void resume() override { log += 'C'; }

  std::array<std::uint16_t, 2> sizes{8, 16};
  std::uint64_t second_queue_feature = 0;  // 0: there always is a second queue
  std::array<std::byte, 6> configuration{std::byte{1}, std::byte{2}, std::byte{3},
                                         std::byte{4}, std::byte{5}, std::byte{6}};
  std::string log;  // 'A' for activate, 'R' for reset, the number of a kicked queue
  std::vector<Queue> queues;
  std::uint64_t features_accepted = 0;
  DriverNotifier* driver = nullptr;
  bool active = false;
  bool slow = false;  // a reset waits until the test calls reset_done
  std::function<void()> reset_done;
};

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
              CHECK(done);
            },
            [this] { ++interrupts; }, [this](std::uint16_t) { ++kicks_later; }) {}

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
  int kicks_later = 0;
  std::function<void()> wait;  // what a vCPU that waits for the device lets happen
  alignas(std::uint32_t) std::array<std::byte, kMmioSize> page{};
  MmioTransport transport;
};

}  // namespace msb::virtio::testing
