// SPDX-License-Identifier: Apache-2.0
// The virtio file system device (virtio 1.2 section 5.11): FUSE over a virtqueue, here for a
// read-only synthetic tree.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/async_io.hpp"
#include "virtio/device.hpp"
#include "virtio/fs/fuse_server.hpp"
#include "virtio/fs/shared_tree.hpp"
#include "virtio/in_flight.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

class FsDevice final : public Device {
 public:
  // `tag` names the file system to the guest; at most 36 bytes, the rest is cut. `io` must outlive
  // the device, and be drained before the device is destroyed.
  FsDevice(std::string_view tag, SharedTree tree, AsyncIo& io);

  [[nodiscard]] std::uint32_t type() const override { return kDeviceFs; }
  [[nodiscard]] std::uint64_t features() const override { return 0; }
  [[nodiscard]] std::span<const std::uint16_t> max_queue_sizes() const override;
  [[nodiscard]] std::span<const std::byte> config() const override {
    return std::as_bytes(std::span(&config_, 1));
  }
  void activate(std::vector<Queue> queues, std::uint64_t features, DriverNotifier& driver) override;
  void on_queue(std::uint16_t index) override;
  void reset(std::function<void()> done) override;
  void pause(std::function<void()> done) override;
  void resume() override {}

 private:
  // A read under way: owns the guest's buffers until the file has filled them.
  struct Read : InFlight<Read>::Entry {
    Read(FsDevice& device, Queue from, DescriptorChain buffers, std::uint64_t request,
         const FuseRead& what);
    Queue queue;
    DescriptorChain chain;
    std::uint64_t unique;
    FuseRead wanted;
    std::uint64_t fetched = 0;  // bytes of it that are in place
    std::vector<iovec> iovecs;
    Operation operation;
  };

  void serve(Queue& queue, DescriptorChain chain);
  void push(Queue& queue, DescriptorChain chain, std::int32_t error, std::uint32_t used);
  void start_read(Queue& queue, DescriptorChain chain, std::uint64_t unique,
                  const FuseRead& request);
  void continue_read(Read& read);
  void on_read(Read& read, std::int32_t result);
  void finish_read(Read& read, std::int32_t error);

  FsConfig config_{};
  SharedTree tree_;
  AsyncIo& io_;
  std::vector<Queue> queues_;  // empty while idle
  DriverNotifier* driver_ = nullptr;
  InFlight<Read> reads_;
};

}  // namespace msb::virtio
