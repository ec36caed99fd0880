// SPDX-License-Identifier: Apache-2.0
// The virtio file system device (virtio 1.2 section 5.11): FUSE over a virtqueue.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/async_io.hpp"
#include "virtio/device.hpp"
#include "virtio/fs/fuse_server.hpp"
#include "virtio/in_flight.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

// What shared directories are asked for blocks, for as long as the host's file systems do, and is
// offloaded; what the tree is asked for is not kept waiting by that. Reads of what the host has to
// fetch, larger writes and synchronizations are under way beside each other.
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
    enum class Kind : std::uint8_t { kServe, kRead, kWrite, kSync };
    Transfer(FsDevice& device, Queue from, DescriptorChain buffers, std::uint64_t request);
    Queue queue;
    DescriptorChain chain;
    std::uint64_t unique;
    Kind kind = Kind::kServe;
    // While it is served: the request, and what came of it. The other thread's, until it is done.
    std::vector<std::byte> request;
    FuseServer::Rest rest;
    FuseAnswer answer;

    int file = -1;
    std::shared_ptr<const OpenFile> keep;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::uint64_t moved = 0;  // bytes of it so far
    std::vector<iovec> iovecs;
    Operation operation;
  };

  void serve(Queue& queue, DescriptorChain chain);
  void work(Transfer& transfer);
  void obey(Transfer& transfer, FuseAnswer answer);
  void move(Transfer& transfer);
  void on_done(Transfer& transfer, std::int32_t result);
  void on_moved(Transfer& transfer, std::int32_t result);
  void reply(Transfer& transfer, std::int32_t error, std::span<const std::byte> payload);
  void finish_transfer(Transfer& transfer, std::int32_t error);
  void finish(Transfer& transfer, std::int32_t error, std::uint32_t used);
  void forget(std::function<void()> done);

  FsConfig config_{};
  FuseServer server_;  // the tree on the loop's thread, the shares where is offloaded to
  AsyncIo& io_;
  std::vector<Queue> queues_;  // empty while idle
  DriverNotifier* driver_ = nullptr;
  InFlight<Transfer> transfers_;
  Operation forgetting_{[this](std::int32_t) { std::exchange(forgotten_, nullptr)(); }};
  std::function<void()> forgotten_;  // of a reset under way
  std::vector<std::byte> request_;   // the one that has just come
};

}  // namespace msb::virtio
