// SPDX-License-Identifier: Apache-2.0
// The traditional memory balloon device (virtio 1.2 section 5.5): memory that the guest does not
// need goes back to the host, because it was asked for (inflation) or of the guest's own accord
// (free page reporting).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "virtio/balloon/balloon_stats.hpp"
#include "virtio/device.hpp"
#include "virtio/guest_memory.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

class BalloonDevice final : public Device {
 public:
  // `memory` is what the guest gives back from, and must outlive the device.
  explicit BalloonDevice(const GuestMemory& memory);

  // Pages are of 4 KiB. All calls are for the loop's thread.

  // Asks the guest to give up `pages`, cut to all of its RAM; 0 asks it to take all of them back.
  // It may take its time, or not do it at all. Outlasts resets.
  void set_target(std::uint64_t pages);
  [[nodiscard]] std::uint32_t target_pages() const { return config_.num_pages; }
  // How many the guest says it has given up, cut to all of its RAM. Its word only: what the host
  // got back is returned_bytes().
  [[nodiscard]] std::uint32_t actual_pages() const;

  // Bytes of pages that went back to the host since the device exists. A page that the guest took
  // again and gave back again counts again.
  [[nodiscard]] std::uint64_t returned_bytes() const { return returned_bytes_; }

  // Asks the driver for new statistics, which stats() gives once they have come. False when there
  // is no driver to ask, or it has not answered the request before.
  bool request_stats();
  // The latest that this driver gave; nothing before its first.
  [[nodiscard]] const std::optional<BalloonStats>& stats() const { return stats_; }

  [[nodiscard]] std::uint32_t type() const override { return kDeviceBalloon; }
  [[nodiscard]] std::uint64_t features() const override {
    return kBalloonFeatureStats | kBalloonFeatureDeflateOnOom | kBalloonFeatureReporting;
  }
  [[nodiscard]] std::span<const std::uint16_t> max_queue_sizes() const override;
  [[nodiscard]] std::size_t queues_needed(std::uint64_t features) const override;
  [[nodiscard]] std::span<const std::byte> config() const override {
    return std::as_bytes(std::span(&config_, 1));
  }
  void write_config(std::size_t offset, std::span<const std::byte> data) override;
  void activate(std::vector<Queue> queues, std::uint64_t features, DriverNotifier& driver) override;
  void on_queue(std::uint16_t index) override;
  void reset(std::function<void()> done) override;
  void pause(std::function<void()> done) override { done(); }  // nothing is ever under way
  void resume() override {}

 private:
  void serve(std::uint16_t index, DescriptorChain chain);
  [[nodiscard]] bool inflate(const DescriptorChain& chain);
  [[nodiscard]] bool deflate(const DescriptorChain& chain) const;
  [[nodiscard]] bool report(const DescriptorChain& chain);
  void keep_stats(DescriptorChain chain);
  [[nodiscard]] bool discard(std::span<std::uint32_t> pages);
  void answer(Queue& queue, DescriptorChain chain, bool good);

  const GuestMemory& memory_;
  const std::uint64_t ram_size_;  // bytes
  BalloonConfig config_{};
  std::vector<Queue> queues_;  // empty while idle
  std::uint64_t features_ = 0;
  DriverNotifier* driver_ = nullptr;
  std::optional<DescriptorChain> stats_buffer_;  // the driver's, to be used when asking for more
  std::optional<BalloonStats> stats_;
  std::uint64_t reportable_ = 0;  // bytes that reports may still name in this kick
  std::uint64_t returned_bytes_ = 0;
};

}  // namespace msb::virtio
