// SPDX-License-Identifier: Apache-2.0
// The virtio-mmio transport (virtio 1.2 section 4.2), modern interface only: a register window, the
// status state machine of section 3.1, and the hand-over of configured queues to a device.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "virtio/device.hpp"
#include "virtio/guest_memory.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

// What the registers read as lies in one page, kept current, that may be mapped into the guest for
// reading: then reads never leave the guest. An acknowledgement of used buffers alone may be
// swallowed before it comes here: bit 0 of InterruptStatus stays set then, which says no more than
// that the rings are worth a look, on a line that is the device's own.
//
// Registers belong to the vCPU threads, which must not call read() and write() at the same time;
// the device belongs to the loop's thread. The two meet in the page's two status words and in
// `DeviceThread`.
class MmioTransport final : private DriverNotifier {
 public:
  // Runs `step` on the thread that owns the device, and returns when the `done` handed to it has
  // been called.
  using DeviceThread = std::function<void(std::function<void(std::function<void()> done)> step)>;

  using RegisterPage = std::span<std::byte, kMmioSize>;

  // `raise_interrupt` asserts the device's interrupt line (edge); callable from any thread.
  // `kick_later` makes the device's thread call kick(index) soon. `page`: zeroed, aligned to 4
  // bytes. All references must outlive the transport.
  MmioTransport(Device& device, const GuestMemory& memory, RegisterPage page,
                DeviceThread device_thread, std::function<void()> raise_interrupt,
                std::function<void(std::uint16_t index)> kick_later);

  // A guest access of data.size() bytes at `offset` of the window. Whatever the guest does is
  // answered: what the specification does not define reads as zero and is ignored when written.
  void read(std::uint64_t offset, std::span<std::byte> data) const;
  void write(std::uint64_t offset, std::span<const std::byte> data);

  // A kick of queue `index`, on the device's thread. Ignored unless the device is active.
  void kick(std::uint16_t index);

  // Brings the device to rest, and wakes it, on its thread. No access may come in between. Kicks
  // that do are not lost: resume() looks at all queues.
  void pause(std::function<void()> done);
  void resume();

  // Accesses of the driver that came here, by register: read and written at offset / 4, and those
  // of the configuration space at the end. From any thread.
  static constexpr std::size_t kRegisters = kMmioConfig / 4 + 1;
  [[nodiscard]] std::uint64_t reads(std::size_t index) const {
    return reads_[index].load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t writes(std::size_t index) const {
    return writes_[index].load(std::memory_order_relaxed);
  }
  // How often the driver kicked an active device, and was interrupted. From any thread.
  [[nodiscard]] std::uint64_t kicks() const { return kicks_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t interrupts() const {
    return interrupts_.load(std::memory_order_relaxed);
  }

 private:
  struct QueueRegisters {
    QueueGeometry geometry;
    bool ready = false;
  };

  [[nodiscard]] std::uint64_t offered() const;  // features
  [[nodiscard]] std::atomic_ref<std::uint32_t> word(std::uint64_t offset) const;
  void show_selected();
  void write_register(std::uint64_t offset, std::uint32_t value);
  void write_queue_register(std::uint64_t offset, std::uint32_t value);
  void write_status(std::uint32_t value);
  void activate();
  void reset();
  [[nodiscard]] bool configurable()
      const;  // queues may be set up: after FEATURES_OK, before DRIVER_OK
  QueueRegisters* selected_queue();

  void write_config(std::uint64_t offset, std::span<const std::byte> data);
  bool show_config();  // whether it had changed

  [[nodiscard]] bool wants_reset() const;

  void used_buffers() override;
  void kick_again(std::uint16_t index) override { kick_later_(index); }
  void config_changed() override;
  void needs_reset() override;
  void raise(std::uint32_t cause);

  Device& device_;
  const GuestMemory& memory_;
  RegisterPage page_;
  DeviceThread device_thread_;
  std::mutex raise_mutex_;
  std::function<void()> raise_interrupt_;
  std::function<void(std::uint16_t)> kick_later_;

  std::uint32_t device_features_sel_ = 0;
  std::uint32_t driver_features_sel_ = 0;
  std::uint64_t driver_features_ = 0;
  std::uint32_t queue_sel_ = 0;
  std::vector<QueueRegisters> queues_;

  std::atomic_ref<std::uint32_t> status_;
  std::atomic_ref<std::uint32_t> interrupt_status_;
  std::size_t active_queues_ = 0;  // of the active device; the device's thread only
  bool paused_ = false;            // likewise
  mutable std::array<std::atomic<std::uint64_t>, kRegisters> reads_{};
  std::array<std::atomic<std::uint64_t>, kRegisters> writes_{};
  std::atomic<std::uint64_t> kicks_ = 0;
  std::atomic<std::uint64_t> interrupts_ = 0;
};

}  // namespace msb::virtio
