// SPDX-License-Identifier: Apache-2.0
// A device that does nothing but record its life.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "virtio/device.hpp"
#include "virtio/testing/require.hpp"

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
    require(active, "kicks reach an active device only");
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
  // 'A' for activate, 'R' for reset, 'P' for pause, 'C' for resume, the number of a kicked queue.
  std::string log;
  std::vector<Queue> queues;
  std::uint64_t features_accepted = 0;
  DriverNotifier* driver = nullptr;
  bool active = false;
  bool slow = false;  // a reset waits until the test calls reset_done
  std::function<void()> reset_done;
};

}  // namespace msb::virtio::testing
