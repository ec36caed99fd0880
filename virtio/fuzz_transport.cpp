// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a guest's accesses to a transport's registers, beside a model of them. The
// input is steps: an Action's byte, then what the action takes. All registers read as the model has
// them, and a device becomes active only with the rings that were checked (hostile-input.md 1, 2,
// 23, 24). Seeds: tests/corpus/virtio-transport.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include "virtio/testing/fuzz_input.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_device.hpp"
#include "virtio/testing/require.hpp"
#include "virtio/testing/transport_driver.hpp"
#include "virtio/testing/transport_model.hpp"

namespace msb::virtio {
namespace {

using namespace testing;

constexpr std::size_t kWidest = 16;  // bytes of one access

enum class Action : std::uint8_t {
  kWriteRegister,   // register, 4 bytes
  kWriteSmall,      // register, 1 byte
  kWrite,           // offset (2 bytes), width, bytes
  kRead,            // offset (2 bytes), width
  kKick,            // queue (2 bytes)
  kNegotiate,       // feature bits that are left out
  kSetUpQueue,      // queue, size, page
  kUsedBuffers,     // by the device
  kNeedsReset,      // by the device
  kChangeConfig,    // by the device: where, to what
  kSlowReset,       // the next resets wait for the device, or not any more
  kResetAndForget,  // by the driver
};
constexpr std::size_t kActions = 12;

class World {
 public:
  World() {
    driver_.wait = [this] {
      // 2.1.2: until the device has let go of the guest's memory, the driver does not read 0.
      require(driver_.status() == model_before_.status && device_.queues.empty(),
              "a reset is over only when the device says so");
      std::exchange(device_.reset_done, nullptr)();
    };
  }

  void step(FuzzInput& input) {
    const bool was_active = model_.active;
    act(input);
    check_registers();
    require(device_.active == model_.active, "a device is active when its driver made it so");
    if (!was_active && model_.active) {
      check_activation();
    }
  }

 private:
  void act(FuzzInput& input) {
    switch (static_cast<Action>(input.below(kActions))) {
      case Action::kWriteRegister: {
        const std::uint64_t offset = input.byte() * std::uint64_t{4};
        write(offset, input.take<std::uint32_t>());
        break;
      }
      case Action::kWriteSmall: {
        const std::uint64_t offset = input.byte() * std::uint64_t{4};
        write(offset, input.byte());
        break;
      }
      case Action::kWrite: {
        const std::uint64_t offset = input.take<std::uint16_t>();
        const auto bytes = input.take_bytes(input.below(kWidest + 1));
        write(offset, bytes);
        break;
      }
      case Action::kRead: {
        const std::uint64_t offset = input.take<std::uint16_t>();
        check_read(offset, input.below(kWidest + 1));
        break;
      }
      case Action::kKick: {
        const auto queue = input.take<std::uint16_t>();
        const std::size_t before = device_.log.size();
        driver_.transport.kick(queue);
        const bool heard = model_.active && (model_.status & kStatusNeedsReset) == 0 && queue < 2;
        require(device_.log.size() == before + (heard ? 1 : 0), "a kick reaches an active device");
        break;
      }
      case Action::kNegotiate:
        negotiate(input.byte());
        break;
      case Action::kSetUpQueue: {
        const std::size_t queue = input.below(3);
        const auto size = static_cast<std::uint32_t>(1U << input.below(6));
        set_up_queue(static_cast<std::uint32_t>(queue), size,
                     GuestRam::kStart + input.below(17) * kPage);
        break;
      }
      case Action::kUsedBuffers:
        if (model_.active) {
          device_.driver->used_buffers();
          model_.interrupts |= kMmioInterruptUsedBuffer;
        }
        break;
      case Action::kNeedsReset:
        if (model_.active) {
          device_.driver->needs_reset();
          model_.need_reset();
        }
        break;
      case Action::kChangeConfig:
        if (model_.active) {
          device_.configuration.at(input.below(device_.configuration.size())) =
              std::byte{input.byte()};
          device_.driver->config_changed();
          model_.set_config(device_.configuration);
          model_.interrupts |= kMmioInterruptConfig;
        }
        break;
      case Action::kSlowReset:
        device_.slow = !device_.slow;
        break;
      case Action::kResetAndForget:
        write(kMmioStatus, 0);
        break;
    }
  }

  void write(std::uint64_t offset, std::span<const std::byte> bytes) {
    model_before_ = model_;
    driver_.transport.write(offset, bytes);
    model_.write(offset, bytes);
  }
  void write(std::uint64_t offset, std::uint32_t value) {
    write(offset, std::as_bytes(std::span(&value, 1)));
  }

  // What chance alone seldom does, up to FEATURES_OK.
  void negotiate(std::uint8_t left_out) {
    write(kMmioStatus, 0);
    write(kMmioStatus, kStatusAcknowledge);
    write(kMmioStatus, kStatusAcknowledge | kStatusDriver);
    write(kMmioDriverFeaturesSel, 1);
    write(kMmioDriverFeatures, static_cast<std::uint32_t>(TransportModel::kOffered >> 32));
    write(kMmioDriverFeaturesSel, 0);
    write(kMmioDriverFeatures, static_cast<std::uint32_t>(TransportModel::kOffered) & ~left_out);
    write(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
  }

  void set_up_queue(std::uint32_t queue, std::uint32_t size, GuestAddress base) {
    write(kMmioQueueSel, queue);
    write(kMmioQueueSize, size);
    for (std::uint64_t part = 0; part < 3; ++part) {
      write(kMmioQueueDescLow + 16 * part, static_cast<std::uint32_t>(base + 0x400 * part));
      write(kMmioQueueDescHigh + 16 * part, 0);
    }
    write(kMmioQueueReady, 1);
  }

  // What a guest reads, and what it reads where the page is mapped into it.
  void check_registers() {
    for (std::uint64_t offset = 0; offset < kMmioConfig; offset += 4) {
      check_read(offset, 4);
    }
    check_read(kMmioConfig, sizeof model_.config);
    require(std::ranges::equal(std::span(driver_.page).subspan(kMmioConfig, sizeof model_.config),
                               model_.config),
            "the page shows the configuration space");
  }

  void check_read(std::uint64_t offset, std::size_t width) {
    std::array<std::byte, kWidest> got;
    got.fill(std::byte{0xa5});  // whatever the guest's register held
    std::array<std::byte, kWidest> expected{};
    const auto data = std::span(got).first(width);
    driver_.transport.read(offset, data);
    if (offset >= kMmioConfig) {
      for (std::size_t i = 0; i < width; ++i) {
        const std::uint64_t at = offset + i - kMmioConfig;
        expected.at(i) = at < model_.config.size() ? model_.config.at(at) : std::byte{0};
      }
    } else if (width == 4 && offset % 4 == 0) {
      const std::uint32_t value = model_.read(offset);
      std::memcpy(expected.data(), &value, sizeof value);
    }
    if (!std::ranges::equal(data, std::span(expected).first(width))) {
      fail_test(fmt::format("{} bytes at {:#x} read as the model has them", width, offset));
    }
  }

  // The features, and in each queue a chain put where the driver said, which must be found there
  // and be returned there.
  void check_activation() {
    require(device_.features_accepted == model_.features,
            "what is accepted is what was negotiated");
    require(device_.queues.size() == model_.queues.size(), "a device gets all its queues");
    for (std::size_t i = 0; i < model_.queues.size(); ++i) {
      const TransportModel::ModelQueue& queue = model_.queues.at(i);
      require(queue.usable(TransportModel::kSizes.at(i)), "only usable rings are used");
      if (overlaps(queue)) {
        continue;  // whatever a chain in there would be
      }
      const auto [descriptors, available, used] = queue.parts;
      const auto before = ram_.snapshot();
      ram_.put(descriptors, Descriptor{GuestRam::kStart, 1, kDescriptorWrite, 0});
      ram_.put(available + kAvailableIndex, std::uint16_t{1});
      ram_.put(available + kAvailableEntries, std::uint16_t{0});
      auto chain = device_.queues.at(i).pop();
      require(chain.has_value() && chain->has_value(), "the device's ring is the driver's");
      device_.queues.at(i).push(std::move(**chain), 7);
      require(ram_.get<std::uint16_t>(used + kUsedIndex) == 1, "the used index is the driver's");
      const auto element = ram_.get<UsedElement>(used + kUsedEntries);
      require(element.id == 0 && element.length == 7, "the used ring is the driver's");
      ram_.put_bytes(GuestRam::kStart, before);
    }
  }

  static bool overlaps(const TransportModel::ModelQueue& queue) {
    for (std::size_t i = 0; i < queue.parts.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (queue.parts.at(i) < queue.parts.at(j) + queue.lengths().at(j) &&
            queue.parts.at(j) < queue.parts.at(i) + queue.lengths().at(i)) {
          return true;
        }
      }
    }
    return false;
  }

  GuestRam ram_;
  RecordingDevice device_;
  TransportDriver driver_{device_, ram_.memory()};
  TransportModel model_;
  TransportModel model_before_;
};

}  // namespace
}  // namespace msb::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace msb::virtio;
  testing::FuzzInput input(data, size);
  World world;
  while (!input.empty()) {
    world.step(input);
  }
  return 0;
}
