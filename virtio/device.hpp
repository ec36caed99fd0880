// SPDX-License-Identifier: Apache-2.0
// What a virtio device is to its transport.
//
//            activate()                on_queue(i)*
//   idle ────────────────▶ active ───────────────────▶ active
//     ▲                      │ reset(done)
//     └── done() ── draining ◀
//
// Whether idle or active, pause(done) brings it to rest until resume().
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
  // Used buffers were added (2.3 "Notifications"). On any thread; the others on the loop's.
  virtual void used_buffers() = 0;
  // Calls on_queue(index) soon, behind what else is ready: for a device that leaves chains in a
  // queue, so that no driver has the loop for itself. The driver need not kick for those.
  virtual void kick_again(std::uint16_t index) = 0;
  // The device's config() gives something else than before: shows it and says so (2.3).
  virtual void config_changed() = 0;
  // The driver broke the device beyond repair: sets DEVICE_NEEDS_RESET (2.1.2) and says so.
  virtual void needs_reset() = 0;
};

// What a device has done since it exists, for whoever watches the machine. Directions are the
// guest's: it reads what the device gives.
struct DeviceCounters {
  std::uint64_t requests = 0;       // answered, with whatever answer
  std::uint64_t errors = 0;         // of these, answered with an error or not understood
  std::uint64_t bytes_read = 0;     // payload
  std::uint64_t bytes_written = 0;  // payload
};

class Device {
 public:
  virtual ~Device() = default;

  // These four are constant for the life of the device, and callable from any thread.
  [[nodiscard]] virtual std::uint32_t type() const = 0;
  [[nodiscard]] virtual std::uint64_t features()
      const = 0;  // without those of transport and queues
  [[nodiscard]] virtual std::span<const std::uint16_t> max_queue_sizes()
      const = 0;  // one per queue
  // How many queues, from the first on, a driver has that accepted `features`: a queue that belongs
  // to a feature may be missing without it.
  [[nodiscard]] virtual std::size_t queues_needed(std::uint64_t /*features*/) const {
    return max_queue_sizes().size();
  }

  // The configuration space now, of constant size. Changes only between calls of the transport,
  // with DriverNotifier::config_changed() behind it while the device is active.
  [[nodiscard]] virtual std::span<const std::byte> config() const = 0;
  // The driver wrote data.size() bytes at `offset`, which lie in config().
  virtual void write_config(std::size_t /*offset*/, std::span<const std::byte> /*data*/) {}

  // DRIVER_OK: takes queues_needed(features) queues and what the driver accepted. `driver` stays
  // valid.
  virtual void activate(std::vector<Queue> queues, std::uint64_t features,
                        DriverNotifier& driver) = 0;
  // The driver kicked queue `index` of an active device.
  virtual void on_queue(std::uint16_t index) = 0;
  // Forgets the driver: closes the queues, and calls `done` once no operation touches guest memory
  // any more. Callable when idle.
  virtual void reset(std::function<void()> done) = 0;

  // Comes to rest: starts no operation on guest memory any more, and calls `done` once none is
  // under way. What the host sends meanwhile waits. None of the calls above comes before resume().
  virtual void pause(std::function<void()> done) = 0;
  // on_queue() of every queue follows, if it is active.
  virtual void resume() = 0;

  [[nodiscard]] const DeviceCounters& counters() const { return counters_; }

 protected:
  // One interrupt for what was added to any of `queues` since the last time, if the driver wants
  // it. No queues: no driver.
  static void notify(std::span<Queue> queues, DriverNotifier* driver) {
    bool interrupt = false;
    for (Queue& queue : queues) {
      interrupt |= queue.take_interrupt();
    }
    if (interrupt) {
      driver->used_buffers();
    }
  }

  DeviceCounters counters_;
};

}  // namespace msb::virtio
