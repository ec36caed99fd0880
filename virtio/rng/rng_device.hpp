// SPDX-License-Identifier: Apache-2.0
// The virtio entropy device (virtio 1.2 section 5.4): random bytes from the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "virtio/device.hpp"
#include "virtio/in_flight.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

class RngDevice final : public Device {
 public:
  // The most bytes that one request gets, however large its buffers are.
  static constexpr std::size_t kMaxRequest = 64 * 1024;

  // `source` is read for random bytes: /dev/urandom, opened. `io` must outlive the device, and be
  // drained before the device is destroyed.
  RngDevice(Fd source, AsyncIo& io);

  [[nodiscard]] std::uint32_t type() const override { return kDeviceEntropy; }
  [[nodiscard]] std::uint64_t features() const override { return 0; }
  [[nodiscard]] std::span<const std::uint16_t> max_queue_sizes() const override;
  [[nodiscard]] std::span<const std::byte> config() const override { return {}; }
  void activate(std::vector<Queue> queues, std::uint64_t features, DriverNotifier& driver) override;
  void on_queue(std::uint16_t index) override;
  void reset(std::function<void()> done) override;
  void pause(std::function<void()> done) override;
  void resume() override {}

 private:
  // A request under way: owns the guest's buffers until the source has filled them.
  struct Request : InFlight<Request>::Entry {
    Request(RngDevice& device, DescriptorChain buffers);
    DescriptorChain chain;
    std::vector<iovec> iovecs;
    Operation operation;
  };

  void serve(DescriptorChain chain);
  void on_read(Request& request, std::int32_t result);
  void answer(DescriptorChain chain, std::int32_t result);

  Fd source_;
  AsyncIo& io_;
  std::vector<Queue> queues_;  // empty while idle
  DriverNotifier* driver_ = nullptr;
  InFlight<Request> requests_;  // as many as the queue has entries, at most
};

}  // namespace msb::virtio
