// SPDX-License-Identifier: Apache-2.0
// What sections 3.1 and 4.2 of virtio 1.2 say of the registers in front of a RecordingDevice, and
// nothing of how it is done.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "virtio/queue.hpp"
#include "virtio/spec.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_device.hpp"

namespace msb::virtio::testing {

// The registers as the driver knows them. RAM is GuestRam's own 16 pages.
struct TransportModel {
  static constexpr std::uint64_t kOffered =
      RecordingDevice::kFeatures | Queue::kFeatures | kFeatureVersion1;
  static constexpr std::array<std::uint16_t, 2> kSizes{8, 16};

  struct ModelQueue {
    std::uint32_t size = 0;
    std::array<std::uint64_t, 3> parts{};
    bool ready = false;

    [[nodiscard]] std::array<std::uint64_t, 3> lengths() const {
      return {std::uint64_t{16} * size, 6 + std::uint64_t{2} * size, 6 + std::uint64_t{8} * size};
    }
    [[nodiscard]] bool usable(std::uint16_t limit) const {
      constexpr std::uint64_t kRamEnd = GuestRam::kStart + 16 * kPage;
      constexpr std::array<std::uint64_t, 3> kAlignments{16, 2, 4};
      if (size == 0 || size > limit || (size & (size - 1)) != 0) {
        return false;
      }
      for (std::size_t i = 0; i < parts.size(); ++i) {
        if (parts[i] % kAlignments[i] != 0 || parts[i] < GuestRam::kStart || parts[i] > kRamEnd ||
            kRamEnd - parts[i] < lengths()[i]) {
          return false;
        }
      }
      return true;
    }
  };

  std::uint32_t status = 0;
  std::uint32_t interrupts = 0;
  std::uint32_t device_word = 0;
  std::uint32_t driver_word = 0;
  std::uint32_t selected = 0;
  std::uint64_t features = 0;
  std::array<ModelQueue, 2> queues;
  bool active = false;
  std::uint32_t generation = 0;
  std::array<std::byte, 6> config = RecordingDevice().configuration;

  // What a register reads as, at an offset below kMmioConfig that is a multiple of 4.
  [[nodiscard]] std::uint32_t read(std::uint64_t offset) const {
    switch (offset) {
      case kMmioMagicValue:
        return kMmioMagic;
      case kMmioVersion:
        return kMmioVersionModern;
      case kMmioDeviceId:
        return RecordingDevice::kType;
      case kMmioVendorId:
        return kMmioVendor;
      case kMmioDeviceFeatures:
        return device_word < 2 ? static_cast<std::uint32_t>(kOffered >> (32 * device_word)) : 0;
      case kMmioQueueSizeMax:
        return selected < queues.size() ? kSizes[selected] : 0;
      case kMmioQueueReady:
        return selected < queues.size() && queues[selected].ready ? 1 : 0;
      case kMmioInterruptStatus:
        return interrupts;
      case kMmioStatus:
        return status;
      case kMmioShmLenLow:
      case kMmioShmLenHigh:
      case kMmioShmBaseLow:
      case kMmioShmBaseHigh:
        return 0xffff'ffff;  // no shared memory
      case kMmioConfigGeneration:
        return generation;
      default:
        return 0;
    }
  }

  // An access of any width anywhere.
  void write(std::uint64_t offset, std::span<const std::byte> data) {
    if (offset >= kMmioConfig) {
      const std::uint64_t at = offset - kMmioConfig;
      if (at < config.size() && data.size() <= config.size() - at) {
        auto changed = config;
        for (std::size_t i = 0; i < data.size(); ++i) {
          changed[at + i] = data[i];
        }
        set_config(changed);
      }
    } else if (offset % 4 == 0 && data.size() == 4) {
      std::uint32_t value = 0;
      std::memcpy(&value, data.data(), sizeof value);
      write_register(offset, value);
    }
  }

  // The device shows something else.
  void set_config(const std::array<std::byte, 6>& now) {
    generation += now == config ? 0 : 2;
    config = now;
  }

  void need_reset() {
    if ((status & 64) == 0) {
      interrupts |= 2;
    }
    status |= 64;
  }

 private:
  void write_register(std::uint64_t offset, std::uint32_t value) {
    switch (offset) {
      case kMmioStatus:
        write_status(value);
        return;
      case kMmioDeviceFeaturesSel:
        device_word = value;
        return;
      case kMmioDriverFeaturesSel:
        driver_word = value;
        return;
      case kMmioDriverFeatures:
        if ((status & 8) == 0 && driver_word < 2) {
          const unsigned shift = 32 * driver_word;
          features = (features & ~(0xffff'ffffULL << shift)) | (std::uint64_t{value} << shift);
        }
        return;
      case kMmioQueueSel:
        selected = value;
        return;
      case kMmioInterruptAck:
        interrupts &= ~value;
        return;
      default:
        write_queue(offset, value);
        return;
    }
  }

  void write_queue(std::uint64_t offset, std::uint32_t value) {
    if (selected >= queues.size() || (status & 8) == 0 || (status & 4) != 0) {
      return;
    }
    ModelQueue& queue = queues[selected];
    if (offset == kMmioQueueReady) {
      queue.ready = value == 1 && queue.usable(kSizes[selected]);
    } else if (queue.ready) {
      return;
    } else if (offset == kMmioQueueSize) {
      queue.size = value;
    } else if (offset >= kMmioQueueDescLow && offset <= kMmioQueueDeviceHigh) {
      const std::size_t part = (offset - kMmioQueueDescLow) / 16;
      const std::uint64_t within = (offset - kMmioQueueDescLow) % 16;
      if (within == 0) {
        queue.parts[part] = (queue.parts[part] & ~0xffff'ffffULL) | value;
      } else if (within == 4) {
        queue.parts[part] = (queue.parts[part] & 0xffff'ffffULL) | std::uint64_t{value} << 32;
      }
    }
  }

  void write_status(std::uint32_t value) {
    if (value == 0) {
      TransportModel fresh;
      fresh.generation = generation;
      fresh.config = config;
      *this = fresh;
      return;
    }
    const std::uint32_t old = status;
    status |= value & (1 | 2 | 128);
    if ((value & 8) != 0 && (status & 2) != 0 && (features & ~kOffered) == 0 &&
        (features >> 32 & 1) != 0) {
      status |= 8;
    }
    if ((value & 4) != 0 && (old & 8) != 0 && (old & (4 | 64 | 128)) == 0) {
      status |= 4;
      active = queues[0].ready && queues[1].ready;
      if (!active) {
        need_reset();
      }
    }
  }
};

}  // namespace msb::virtio::testing
