// SPDX-License-Identifier: Apache-2.0
#include "virtio/mmio_transport.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace msb::virtio {

namespace {

// Replaces one half of a 64-bit register.
void set_low(std::uint64_t& value, std::uint32_t low) {
  value = (value & ~std::uint64_t{0xffffffff}) | low;
}
void set_high(std::uint64_t& value, std::uint32_t high) {
  value = (value & 0xffffffff) | (std::uint64_t{high} << 32);
}

// 4.2.2.2: a device must accept at least 32-bit accesses to registers; the others are the driver's
// mistake.
constexpr std::size_t kRegisterSize = 4;

std::size_t register_index(std::uint64_t offset) {
  return std::min(offset / kRegisterSize, std::uint64_t{MmioTransport::kRegisters - 1});
}

}  // namespace

MmioTransport::MmioTransport(Device& device, const GuestMemory& memory, RegisterPage page,
                             DeviceThread device_thread, std::function<void()> raise_interrupt,
                             std::function<void(std::uint16_t)> kick_later)
    : device_(device),
      memory_(memory),
      page_(page),
      device_thread_(std::move(device_thread)),
      raise_interrupt_(std::move(raise_interrupt)),
      kick_later_(std::move(kick_later)),
      queues_(device.max_queue_sizes().size()),
      status_(word(kMmioStatus)),
      interrupt_status_(word(kMmioInterruptStatus)) {
  word(kMmioMagicValue) = kMmioMagic;
  word(kMmioVersion) = kMmioVersionModern;
  word(kMmioDeviceId) = device_.type();
  word(kMmioVendorId) = kMmioVendor;
  for (const std::uint64_t part :
       {kMmioShmLenLow, kMmioShmLenHigh, kMmioShmBaseLow, kMmioShmBaseHigh}) {
    word(part) = ~std::uint32_t{0};  // 4.2.2: length -1 says that there is no such region
  }
  std::ranges::copy(device_.config(), page_.begin() + kMmioConfig);
  show_selected();
}

std::atomic_ref<std::uint32_t> MmioTransport::word(std::uint64_t offset) const {
  return std::atomic_ref(*reinterpret_cast<std::uint32_t*>(page_.data() + offset));
}

std::uint64_t MmioTransport::offered() const {
  return device_.features() | Queue::kFeatures | kFeatureVersion1;
}

// The registers whose value depends on others.
void MmioTransport::show_selected() {
  const std::uint64_t features = offered();
  word(kMmioDeviceFeatures) =
      device_features_sel_ < 2 ? static_cast<std::uint32_t>(features >> (32 * device_features_sel_))
                               : 0;
  const QueueRegisters* queue = selected_queue();
  word(kMmioQueueSizeMax) = queue != nullptr ? device_.max_queue_sizes()[queue_sel_] : 0;
  word(kMmioQueueReady) = queue != nullptr && queue->ready ? 1 : 0;
}

void MmioTransport::read(std::uint64_t offset, std::span<std::byte> data) const {
  std::ranges::fill(data, std::byte{0});
  if (offset >= kMmioSize) {
    return;
  }
  reads_[register_index(offset)].fetch_add(1, std::memory_order_relaxed);
  if (offset >= kMmioConfig) {
    // The device may be changing it on its own thread.
    const auto rest = page_.subspan(offset);
    for (std::size_t i = 0; i < std::min(data.size(), rest.size()); ++i) {
      data[i] = std::atomic_ref(rest[i]).load(std::memory_order_relaxed);
    }
  } else if (data.size() == kRegisterSize && offset % kRegisterSize == 0) {
    const std::uint32_t value = word(offset);
    std::memcpy(data.data(), &value, sizeof value);
  }
}

void MmioTransport::write(std::uint64_t offset, std::span<const std::byte> data) {
  if (offset < kMmioSize) {
    writes_[register_index(offset)].fetch_add(1, std::memory_order_relaxed);
  }
  if (offset >= kMmioConfig) {
    write_config(offset - kMmioConfig, data);
  } else if (data.size() == kRegisterSize && offset % kRegisterSize == 0) {
    std::uint32_t value = 0;
    std::memcpy(&value, data.data(), sizeof value);
    write_register(offset, value);
    show_selected();
  }
}

void MmioTransport::write_config(std::uint64_t offset, std::span<const std::byte> data) {
  const std::size_t size = device_.config().size();
  if (offset >= size || data.size() > size - offset) {
    return;
  }
  device_thread_([&](const std::function<void()>& done) {
    device_.write_config(offset, data);
    show_config();
    done();
  });
}

// The generation changes before and after (2.5.3), for a driver that reads meanwhile. One that read
// all of it in between has the interrupt of config_changed() still to come.
bool MmioTransport::show_config() {
  const std::span<const std::byte> config = device_.config();
  const auto shown = page_.subspan(kMmioConfig, config.size());
  if (std::ranges::equal(config, shown)) {
    return false;
  }
  const auto generation = word(kMmioConfigGeneration);
  generation.fetch_add(1, std::memory_order_acq_rel);
  for (std::size_t i = 0; i < config.size(); ++i) {
    std::atomic_ref(shown[i]).store(config[i], std::memory_order_relaxed);
  }
  generation.fetch_add(1, std::memory_order_acq_rel);
  return true;
}

void MmioTransport::write_register(std::uint64_t offset, std::uint32_t value) {
  switch (offset) {
    case kMmioDeviceFeaturesSel:
      device_features_sel_ = value;
      break;
    case kMmioDriverFeaturesSel:
      driver_features_sel_ = value;
      break;
    case kMmioDriverFeatures:
      // 3.1.1: features are settled once FEATURES_OK is set.
      if ((status_.load(std::memory_order_relaxed) & kStatusFeaturesOk) == 0) {
        if (driver_features_sel_ == 0) {
          set_low(driver_features_, value);
        } else if (driver_features_sel_ == 1) {
          set_high(driver_features_, value);
        }
      }
      break;
    case kMmioQueueSel:
      queue_sel_ = value;
      break;
    case kMmioInterruptAck:
      interrupt_status_.fetch_and(~value, std::memory_order_acq_rel);
      break;
    case kMmioStatus:
      write_status(value);
      break;
    default:
      write_queue_register(offset, value);
      break;
  }
}

bool MmioTransport::configurable() const {
  const std::uint32_t status = status_.load(std::memory_order_relaxed);
  return (status & kStatusFeaturesOk) != 0 && (status & kStatusDriverOk) == 0;
}

MmioTransport::QueueRegisters* MmioTransport::selected_queue() {
  return queue_sel_ < queues_.size() ? &queues_[queue_sel_] : nullptr;
}

void MmioTransport::write_queue_register(std::uint64_t offset, std::uint32_t value) {
  QueueRegisters* queue = selected_queue();
  if (queue == nullptr || !configurable()) {
    return;
  }
  QueueGeometry& geometry = queue->geometry;
  if (offset == kMmioQueueReady) {
    // A queue that could not be used does not become ready, and the driver sees that (4.2.3.2).
    queue->ready = value == 1 && geometry.size <= device_.max_queue_sizes()[queue_sel_] &&
                   Queue::create(memory_, geometry, driver_features_).has_value();
    return;
  }
  if (queue->ready) {
    return;  // 4.2.2.2: what was checked must stay what is used
  }
  switch (offset) {
    case kMmioQueueSize:
      geometry.size = value <= kMaxQueueSize ? static_cast<std::uint16_t>(value) : std::uint16_t{0};
      break;
    case kMmioQueueDescLow:
      set_low(geometry.descriptors, value);
      break;
    case kMmioQueueDescHigh:
      set_high(geometry.descriptors, value);
      break;
    case kMmioQueueDriverLow:
      set_low(geometry.available, value);
      break;
    case kMmioQueueDriverHigh:
      set_high(geometry.available, value);
      break;
    case kMmioQueueDeviceLow:
      set_low(geometry.used, value);
      break;
    case kMmioQueueDeviceHigh:
      set_high(geometry.used, value);
      break;
    default:
      break;
  }
}

void MmioTransport::write_status(std::uint32_t value) {
  if (value == 0) {
    reset();
    return;
  }
  constexpr std::uint32_t kDriverBits =
      kStatusAcknowledge | kStatusDriver | kStatusDriverOk | kStatusFeaturesOk | kStatusFailed;
  const std::uint32_t old = status_.load(std::memory_order_acquire);
  // 2.1.1: the driver must not clear bits; it can only add to them.
  std::uint32_t added = value & kDriverBits & ~old;
  if ((added & kStatusFeaturesOk) != 0) {
    // 2.2.1, 6.1: a subset of what was offered, VERSION_1 among it; and only once the driver said
    // that it is one.
    if ((driver_features_ & ~offered()) != 0 || (driver_features_ & kFeatureVersion1) == 0 ||
        ((old | added) & kStatusDriver) == 0) {
      added &= ~kStatusFeaturesOk;
    }
  }
  const bool starts = (added & kStatusDriverOk) != 0 && (old & kStatusFeaturesOk) != 0 &&
                      (old & (kStatusNeedsReset | kStatusFailed)) == 0;
  if (!starts) {
    added &= ~kStatusDriverOk;
  }
  status_.fetch_or(added, std::memory_order_acq_rel);
  if (starts) {
    activate();
  }
}

void MmioTransport::activate() {
  std::vector<Queue> queues;
  const std::size_t needed = device_.queues_needed(driver_features_);
  for (const QueueRegisters& registers : std::span(queues_).first(needed)) {
    auto queue = registers.ready ? Queue::create(memory_, registers.geometry, driver_features_)
                                 : Result<Queue>(fail("a queue was not made ready"));
    if (!queue) {
      needs_reset();
      return;
    }
    queues.push_back(std::move(*queue));
  }
  device_thread_([&](const std::function<void()>& done) {
    const bool changed = show_config();  // while there was nobody to tell
    active_queues_ = queues.size();
    device_.activate(std::move(queues), driver_features_, *this);
    if (changed) {
      raise(kMmioInterruptConfig);  // drivers read it before they say DRIVER_OK
    }
    done();
  });
}

void MmioTransport::reset() {
  device_thread_([&](const std::function<void()>& done) {
    active_queues_ = 0;
    device_.reset([this, done] {
      show_config();  // what the driver wrote into it goes with the driver
      done();
    });
  });
  // 2.1.2: the driver reads 0 only when the device has let go of its memory.
  device_features_sel_ = 0;
  driver_features_sel_ = 0;
  driver_features_ = 0;
  queue_sel_ = 0;
  std::ranges::fill(queues_, QueueRegisters{});
  interrupt_status_.store(0, std::memory_order_release);
  status_.store(0, std::memory_order_release);
}

bool MmioTransport::wants_reset() const {
  return (status_.load(std::memory_order_acquire) & kStatusNeedsReset) != 0;
}

void MmioTransport::kick(std::uint16_t index) {
  if (index < active_queues_ && !paused_ && !wants_reset()) {
    kicks_.fetch_add(1, std::memory_order_relaxed);
    device_.on_queue(index);
  }
}

void MmioTransport::pause(std::function<void()> done) {
  paused_ = true;
  device_.pause(std::move(done));
}

void MmioTransport::resume() {
  paused_ = false;
  device_.resume();
  for (std::uint16_t index = 0; index < active_queues_ && !wants_reset(); ++index) {
    device_.on_queue(index);
  }
}

void MmioTransport::used_buffers() {
  raise(kMmioInterruptUsedBuffer);
}

void MmioTransport::config_changed() {
  show_config();
  raise(kMmioInterruptConfig);
}

void MmioTransport::needs_reset() {
  const std::uint32_t old = status_.fetch_or(kStatusNeedsReset, std::memory_order_acq_rel);
  // 2.1.2: after DRIVER_OK the driver is told by a configuration change notification.
  if ((old & kStatusNeedsReset) == 0 && (old & kStatusDriverOk) != 0) {
    raise(kMmioInterruptConfig);
  }
}

void MmioTransport::raise(std::uint32_t cause) {
  interrupts_.fetch_add(1, std::memory_order_relaxed);
  interrupt_status_.fetch_or(cause, std::memory_order_acq_rel);
  // An interrupt is a pulse, of which a second one that began before the first had ended would be
  // no edge: the driver might have seen to the first already.
  const std::scoped_lock lock(raise_mutex_);
  raise_interrupt_();
}

}  // namespace msb::virtio
