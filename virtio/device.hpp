// SPDX-License-Identifier: Apache-2.0
// What a virtio device is to its transport.
//
//            activate()                on_queue(i)*
//   idle ────────────────▶ active ───────────────────▶ active
//     ▲                      │ reset(done)
//     └── done() ── draining ◀
//
// Devices are passive: they act only when called, always on the loop's thread, and have no locks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "virtio/queue.hpp"

namespace msb::virtio {

// How a device reaches the driver. Callable from the loop's thread.
class DriverNotifier {
 public:
  virtual ~DriverNotifier() = default;
  // Used buffers were added (2.3 "Notifications").
  virtual void used_buffers() = 0;
  // The driver broke the device beyond repair: sets DEVICE_NEEDS_RESET (2.1.2) and says so.
  virtual void needs_reset() = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  // Constant for the life of the device, callable from any thread.
  [[nodiscard]] virtual std::uint32_t type() const = 0;
  [[nodiscard]] virtual std::uint64_t features()
      const = 0;  // without VERSION_1, which the transport adds
  [[nodiscard]] virtual std::span<const std::uint16_t> max_queue_sizes()
      const = 0;  // one per queue
  [[nodiscard]] virtual std::span<const std::byte> config() const = 0;

  // DRIVER_OK: takes one queue per entry of max_queue_sizes() and what the driver accepted.
  // `driver` stays valid.
  virtual void activate(std::vector<Queue> queues, std::uint64_t features,
                        DriverNotifier& driver) = 0;
  // The driver kicked queue `index` of an active device.
  virtual void on_queue(std::uint16_t index) = 0;
  // Forgets the driver: closes the queues, and calls `done` once no operation touches guest memory
  // any more. Callable when idle.
  virtual void reset(std::function<void()> done) = 0;
};

}  // namespace msb::virtio
