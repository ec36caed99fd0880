// SPDX-License-Identifier: Apache-2.0
// Counts what a device tells its driver.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "virtio/device.hpp"

namespace msb::virtio::testing {

class RecordingNotifier final : public DriverNotifier {
 public:
  void used_buffers() override {
    ++interrupts;
    if (on_used_buffers) {
      on_used_buffers();
    }
  }
  void kick_again(std::uint16_t index) override { kicked_again.push_back(index); }
  void config_changed() override { ++config_changes; }
  void needs_reset() override { ++resets_wanted; }

  int interrupts = 0;
  std::vector<std::uint16_t> kicked_again;
  int config_changes = 0;
  int resets_wanted = 0;
  std::function<void()> on_used_buffers;
};

}  // namespace msb::virtio::testing
