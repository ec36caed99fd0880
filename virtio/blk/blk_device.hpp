// SPDX-License-Identifier: Apache-2.0
// The virtio block device (virtio 1.2 section 5.2) over a raw file: what the guest writes is what
// the file holds, and its contents never say what it is.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "virtio/device.hpp"
#include "virtio/in_flight.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

// A disk's backing.
struct Disk {
  Fd file;                        // a regular file or block device, writable unless read_only
  Fd direct;                      // the same, opened with O_DIRECT; none: by the page cache alone
  std::uint32_t alignment = 512;  // that `direct` wants of offsets, lengths and addresses, bytes:
                                  // at most 4096
  std::uint64_t size = 0;         // bytes; a rest smaller than a block is not shown
  bool read_only = false;
  std::string id;  // what the guest sees as serial number; 20 bytes, the rest is cut
};

// A write is answered when the host's page cache, or with `direct` the file, has it, and for a
// driver that does not know flushes when fdatasync(2) is done with it; a flush when fdatasync(2) is
// done with all that was answered before. The kernel tells of data that it lost once, so from then
// on every flush fails. Requests that are under way at the same time have no order (5.2.6.2).
// Requests are in whole blocks, of `alignment` with `direct`; memory that `direct` cannot take for
// its alignment is copied.
class BlkDevice final : public Device {
 public:
  // `io` must outlive the device, and be drained before the device is destroyed.
  BlkDevice(Disk disk, AsyncIo& io);
  ~BlkDevice() override;
  BlkDevice(const BlkDevice&) = delete;
  BlkDevice& operator=(const BlkDevice&) = delete;

  // The file has `bytes` now, more or fewer: the guest is told. What is under way ends as it began.
  void resize(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t size() const { return config_.capacity * kBlkSectorSize; }  // bytes
  [[nodiscard]] std::uint64_t flushes() const { return flushes_; }                        // done

  [[nodiscard]] std::uint32_t type() const override { return kDeviceBlk; }
  [[nodiscard]] std::uint64_t features() const override { return features_; }
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
  struct Free {
    void operator()(std::byte* bytes) const;
  };
  using AlignedBytes = std::unique_ptr<std::byte, Free>;

  // A request under way: owns the guest's buffers until the file is done with them.
  struct Request : InFlight<Request>::Entry {
    Request(BlkDevice& device, Queue from, DescriptorChain buffers, BlkType what);
    Queue queue;
    DescriptorChain chain;
    BlkType type;
    std::uint64_t offset = 0;  // in the file, bytes: of the transfer, or of the present range
    std::uint64_t size = 0;    // bytes
    std::uint64_t done = 0;    // of these
    std::vector<iovec> iovecs;
    std::vector<BlkRange> ranges;  // still to be done, in reverse order
    bool by_writing = false;       // since the file system cannot make zeroes
    AlignedBytes copy;             // in place of guest memory that `direct` cannot take
    bool syncing = false;          // it is done but for being durable
    Operation operation;
  };

  void serve(DescriptorChain chain);
  void answer(Queue& queue, DescriptorChain chain, BlkStatus status, std::size_t written = 0);
  [[nodiscard]] bool in_disk(std::uint64_t sector, std::uint64_t bytes) const;
  Request& start(DescriptorChain chain, BlkType type);

  void start_transfer(DescriptorChain chain, const BlkRequestHeader& header, std::size_t size);
  void transfer(Request& request);
  void copy_aligned(Request& request, std::size_t size);
  [[nodiscard]] int data_file() const;

  void start_ranges(DescriptorChain chain, BlkType type);
  void next_range(Request& request);
  void write_zeroes(Request& request);

  void on_done(Request& request, std::int32_t result);
  void on_transferred(Request& request, std::int32_t result);
  [[nodiscard]] bool can_go_on(const Request& request, std::int32_t result) const;
  void on_range(Request& request, std::int32_t result);
  void complete(Request& request);
  void sync(Request& request);
  [[nodiscard]] bool on_synced(std::int32_t result);
  void finish(Request& request, BlkStatus status);
  void notify_later();

  Disk disk_;
  AsyncIo& io_;
  std::uint64_t features_ = 0;
  BlkConfig config_{};
  std::vector<Queue> queues_;  // empty while idle
  DriverNotifier* driver_ = nullptr;
  InFlight<Request> requests_;
  Operation notify_;            // one interrupt for all that was finished together
  bool write_through_ = false;  // the driver does not know flushes
  bool lost_data_ = false;      // what was answered, and could then not be written
  std::uint64_t flushes_ = 0;
};

}  // namespace msb::virtio
