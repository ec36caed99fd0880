// SPDX-License-Identifier: Apache-2.0
// The virtio file system device (virtio 1.2 section 5.11): FUSE over a virtqueue.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
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

  // Shares a directory or file as SharedFiles::add() and SharedTree::add_share(), or ends that:
  // what the guest has open there fails from then on. `done` runs on the loop's thread, as soon as
  // the host's file systems let it: when nothing of a share that ended is under way any more.
  using Changed = std::function<void(Result<void>)>;
  void add_share(std::string path, Fd root, bool read_only, ShareCache cache, Changed done);
  void remove_share(std::string_view path, Changed done);

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
    DriverNotifier* driver = nullptr;
    bool returned = false;  // to the driver, with this error
    std::int32_t error = 0;

    int file = -1;
    std::shared_ptr<const OpenFile> keep;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::uint64_t moved = 0;  // bytes of it so far
    std::vector<iovec> iovecs;
    Operation operation;
  };

  void serve(Queue& queue, DescriptorChain chain);
  bool work(Transfer& transfer);
  void obey(Transfer& transfer, FuseAnswer answer);
  void move(Transfer& transfer);
  void on_done(Transfer& transfer, std::int32_t result);
  void on_moved(Transfer& transfer, std::int32_t result);
  static void move_at_once(Transfer& transfer);
  static bool return_at_once(Transfer& transfer);
  void finish_transfer(Transfer& transfer, std::int32_t error);
  void finish(Transfer& transfer, std::int32_t error, std::uint32_t used);
  void count(Transfer& transfer, std::int32_t error);
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

  // A share that begins or ends.
  struct Change : InFlight<Change>::Entry {
    Change(FsDevice& device, Changed then)
        : done(std::move(then)),
          operation([this, &device](std::int32_t result) { device.on_changed(*this, result); }) {}
    Changed done;
    std::string path;
    // One that begins, on the thread of the shares.
    Fd root;
    bool read_only = false;
    ShareCache cache = ShareCache::kAuto;
    Result<SharedFiles::Root> opened;
    // One that ends, also because it could not begin.
    std::shared_ptr<Share> ended;
    bool closed = false;
    Result<void> outcome;
    Operation operation;
  };
  void close(Change& change);
  void on_changed(Change& change, std::int32_t result);
  void settle_changes();
  InFlight<Change> changes_;
};

}  // namespace msb::virtio
