// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a disk between any guest and a file that answers late, short and with errors.
// The input is what disk it is, how its queue is set up, and steps. Whatever was done, the file
// keeps its size, nothing beyond the disk is touched, the device comes to rest, and it works after
// a reset (hostile-input.md 9 to 14). Seeds: tests/corpus/virtio-blk.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "virtio/blk/blk_device.hpp"
#include "virtio/testing/fuzz_driver.hpp"

namespace msb::virtio {
namespace {

using namespace testing;

constexpr std::uint64_t kDiskSize = 64 * 1024;
constexpr std::uint64_t kFileSize = 2 * kDiskSize;  // what the disk may grow to
constexpr GuestAddress kHeaders = FuzzRam::kStart + 4 * kPage;
constexpr GuestAddress kStatuses = kHeaders + kPage / 2;
constexpr GuestAddress kData = FuzzRam::kStart + 5 * kPage;
constexpr std::size_t kSlots = 64;

class World {
 public:
  explicit World(FuzzInput& input)
      : kind_(input.byte()),
        device_(make_disk(), backend_.io),
        driver_(device_, ram_, backend_, 0, (kind_ & 8) == 0 ? kBlkFeatureFlush : 0) {
    backend_.copies = direct_ >= 0;
    backend_.check = [this](const FakeIo::Request& request) { check_request(request); };
    driver_.activate(input);
  }

  void step(FuzzInput& input) {
    const std::size_t action = input.below(FuzzDriver::kActions + 2);
    if (action < FuzzDriver::kActions) {
      driver_.act(static_cast<FuzzDriver::Action>(action), input);
    } else if (action == FuzzDriver::kActions) {
      request(input);
    } else {
      const std::uint64_t bytes = input.byte() * kBlkSectorSize;
      disk_end_ = std::max(disk_end_, bytes);
      device_.resize(bytes);
    }
  }

  void finish() {
    driver_.settle();
    driver_.reset();
    device_.resize(kDiskSize);
    check_works();
    driver_.reset();
    struct stat status{};
    require(::fstat(file_, &status) == 0 && static_cast<std::uint64_t>(status.st_size) == kFileSize,
            "a disk's file keeps its size");
  }

 private:
  [[nodiscard]] bool read_only() const { return (kind_ & 1) != 0; }

  // By the page cache alone, or with what stands for a descriptor with O_DIRECT.
  Disk make_disk() {
    Disk disk;
    disk.file = Fd(::memfd_create("disk", MFD_CLOEXEC));
    require(::ftruncate(disk.file.get(), kFileSize) == 0, "the host has room for a small file");
    file_ = disk.file.get();
    if ((kind_ & 2) != 0) {
      disk.direct = Fd(::dup(file_));
      disk.alignment = (kind_ & 4) != 0 ? 4096 : 512;
    }
    direct_ = disk.direct.get();
    alignment_ = disk.alignment;
    disk.size = kDiskSize;
    disk.read_only = read_only();
    disk.id = "a disk that is tested";
    return disk;
  }

  void check_request(const FakeIo::Request& request) const {
    using Kind = FakeIo::Kind;
    require(request.fd == file_ || (direct_ >= 0 && request.fd == direct_),
            "only the file is used");
    require(!read_only() || request.kind == Kind::kRead, "what is read-only is only read");
    std::uint64_t length = request.length;
    for (const iovec& piece : request.buffers) {
      length += piece.iov_len;
      if (request.fd == direct_) {
        const auto all = reinterpret_cast<std::uintptr_t>(piece.iov_base) | piece.iov_len;
        require(all % alignment_ == 0, "what is not aligned is copied");
      }
    }
    const bool data = request.kind == Kind::kRead || request.kind == Kind::kWrite;
    require(direct_ < 0 || !data || request.fd == direct_, "data goes one way only");
    require(request.fd != direct_ || request.offset % alignment_ == 0, "an offset is aligned");
    require(request.offset <= disk_end_ && length <= disk_end_ - request.offset,
            "nothing beyond the disk is touched");
  }

  // A request that is nearly one: type, sector, where its header is split, what is between header
  // and status.
  void request(FuzzInput& input) {
    constexpr std::array kTypes{BlkType::kIn,    BlkType::kOut,     BlkType::kFlush,
                                BlkType::kGetId, BlkType::kDiscard, BlkType::kWriteZeroes};
    const std::size_t type = input.below(kTypes.size() + 1);
    const std::uint8_t sector = input.byte();
    const std::size_t split = input.below(sizeof(BlkRequestHeader) + 1);
    BlkRequestHeader header{};
    header.type =
        type < kTypes.size() ? kTypes.at(type) : static_cast<BlkType>(input.take<std::uint32_t>());
    header.sector = sector < 0xf0 ? sector : input.take<std::uint64_t>();
    const bool writable = header.type == BlkType::kIn || header.type == BlkType::kGetId;
    const std::vector<Buffer> data = FuzzDriver::take_buffers(input, writable);
    const std::uint8_t shape = input.byte();
    const std::size_t slot = next_slot_++ % kSlots;
    const GuestAddress at = kHeaders + slot * sizeof header;
    ram_.poke(at, header);
    std::vector<Buffer> buffers{
        {at, static_cast<std::uint32_t>(split), false},
        {at + split, static_cast<std::uint32_t>(sizeof header - split), false}};
    buffers.insert(buffers.end(), data.begin(), data.end());
    buffers.push_back({kStatuses + slot, 1, true});
    driver_.offer(0, buffers, shape);
  }

  // More requests than there are entries: none of them may be lost (hostile-input.md 9).
  void check_works() {
    auto queues = driver_.start_well(kFeatureVersion1 | kBlkFeatureFlush);
    DriverQueue& queue = queues.front();
    const auto answer = [&](BlkType type, std::uint64_t sector, std::vector<Buffer> data) {
      ram_.poke(kHeaders, BlkRequestHeader{type, 0, sector});
      ram_.poke(kStatuses, std::uint8_t{0xff});
      data.insert(data.begin(), {kHeaders, sizeof(BlkRequestHeader), false});
      data.push_back({kStatuses, 1, true});
      queue.add(data);
      driver_.kick(0);
      backend_.run(8);
      require(queue.take_used().has_value(), "a good request is answered after a reset");
      return static_cast<BlkStatus>(ram_.ram().get<std::uint8_t>(kStatuses));
    };
    for (std::uint8_t i = 0; i < FuzzDriver::kGoodSize; ++i) {
      const std::vector<std::byte> block(alignment_, std::byte{i});
      const std::uint64_t at = i * (alignment_ / kBlkSectorSize);
      ram_.poke(kData, block);
      const BlkStatus wanted = read_only() ? BlkStatus::kIoError : BlkStatus::kOk;
      require(answer(BlkType::kOut, at, {{kData, alignment_, false}}) == wanted,
              "a block is written, unless the disk is read-only");
      require(answer(BlkType::kIn, at, {{kData, alignment_, true}}) == BlkStatus::kOk,
              "a block is read");
      require(read_only() || ram_.ram().bytes(kData, alignment_) == block,
              "what is read is what was written");
      // With an error, if there was one before.
      require(answer(BlkType::kFlush, 0, {}) != BlkStatus::kUnsupported, "a flush is answered");
    }
    require(driver_.notifier().resets_wanted == 0 && driver_.notifier().interrupts > 0,
            "a driver is told of its answers");
  }

  const std::uint8_t kind_;
  int file_ = -1;  // the device's own descriptors
  int direct_ = -1;
  std::uint32_t alignment_ = 0;
  std::uint64_t disk_end_ = kDiskSize;  // the furthest it has been
  FuzzRam ram_;
  FuzzBackend backend_{ram_};
  BlkDevice device_;
  FuzzDriver driver_;
  std::size_t next_slot_ = 0;
};

}  // namespace
}  // namespace msb::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return msb::virtio::testing::run_world<msb::virtio::World>(data, size);
}
