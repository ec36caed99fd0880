// SPDX-License-Identifier: Apache-2.0
// The virtio file system device (virtio 1.2 section 5.11): FUSE over a virtqueue.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/async_io.hpp"
#include "virtio/device.hpp"
#include "virtio/fs/fuse_server.hpp"
#include "virtio/in_flight.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

// What files and directories are asked for blocks, for as long as the host's file systems do: the
// device wants a loop of its own. Reads and synchronizations, and larger writes, are under way
// beside each other.
class FsDevice final : public Device {
 public:
  // `tag` names the file system to the guest; at most 36 bytes, the rest is cut. `io` must outlive
  // the device, and be drained before the device is destroyed.
  FsDevice(std::string_view tag, FuseServer server, AsyncIo& io);

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
  // A request that the host works on: owns the guest's buffers and the file.
  struct Transfer : InFlight<Transfer>::Entry {
    enum class Kind : std::uint8_t { kRead, kWrite, kSync };
    Transfer(FsDevice& device, Queue from, DescriptorChain buffers, std::uint64_t request,
             Kind what);
    Queue queue;
    DescriptorChain chain;
    std::uint64_t unique;
    Kind kind;
    int file = -1;
    std::shared_ptr<const OpenFile> keep;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::uint64_t moved = 0;  // bytes of it so far
    std::vector<iovec> iovecs;
    Operation operation;
  };

  void serve(Queue& queue, DescriptorChain chain);
  void push(Queue& queue, DescriptorChain chain, std::int32_t error, std::uint32_t used);
  Transfer& start(Queue& queue, DescriptorChain chain, std::uint64_t unique, Transfer::Kind kind,
                  std::shared_ptr<const OpenFile> keep);
  void write(Queue& queue, DescriptorChain chain, std::uint64_t unique, const FuseWrite& wanted);
  void answer_write(Queue& queue, DescriptorChain chain, std::uint64_t unique, std::int64_t result);
  void move(Transfer& transfer);
  void on_moved(Transfer& transfer, std::int32_t result);
  void finish(Transfer& transfer, std::int32_t error);

  FsConfig config_{};
  FuseServer server_;
  AsyncIo& io_;
  std::vector<Queue> queues_;  // empty while idle
  DriverNotifier* driver_ = nullptr;
  InFlight<Transfer> transfers_;
  std::vector<std::byte> request_;  // the one that is being served
};

}  // namespace msb::virtio
