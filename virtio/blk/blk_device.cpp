// SPDX-License-Identifier: Apache-2.0
#include "virtio/blk/blk_device.hpp"

#include <fcntl.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace msb::virtio {

namespace {

constexpr std::array<std::uint16_t, 1> kQueueSizes{256};
// A chain is at most as long as its queue, and each has a header and a status.
constexpr std::uint32_t kSegments = kQueueSizes[0] - 2;
constexpr std::uint32_t kPhysicalBlock = 4096;  // bytes; of nearly every file system below
constexpr std::uint32_t kMaxRanges = 64;
constexpr std::uint32_t kMaxRangeSectors = 1U << 22;  // 2 GiB

// What is written where a file system cannot make zeroes: this, as often as it fits.
constexpr std::size_t kZeroes = std::size_t{64} * 1024;
constexpr std::size_t kMaxZeroIovecs = 16;
alignas(4096) constexpr std::array<std::byte, kZeroes> kZeroBlock{};

// Of a request, at a time: what comes from the page cache is copied on the loop's thread.
constexpr std::size_t kMaxTransfer = std::size_t{1} << 20;
constexpr std::size_t kMaxCopy = std::size_t{64} * 1024;  // for as many requests as there can be

}  // namespace

BlkDevice::BlkDevice(Disk disk, AsyncIo& io)
    : disk_(std::move(disk)), io_(io), notify_([this](std::int32_t) {
        requests_.sweep();
        notify(queues_, driver_);
      }) {
  features_ = kBlkFeatureSegMax | kBlkFeatureBlockSize | kBlkFeatureTopology;
  // 5.2.5.2: a disk that cannot be written has nothing to flush.
  features_ |= disk_.read_only ? kBlkFeatureReadOnly
                               : kBlkFeatureFlush | kBlkFeatureDiscard | kBlkFeatureWriteZeroes;
  config_.seg_max = kSegments;
  const std::uint32_t block =
      std::max(static_cast<std::uint32_t>(kBlkSectorSize), disk_.direct ? disk_.alignment : 0);
  const std::uint32_t physical = std::max(kPhysicalBlock, block);
  config_.blk_size = block;
  config_.physical_block_exp = static_cast<std::uint8_t>(std::countr_zero(physical / block));
  config_.min_io_size = static_cast<std::uint16_t>(physical / block);
  config_.num_queues = 1;
  if (!disk_.read_only) {
    config_.max_discard_sectors = kMaxRangeSectors;
    config_.max_discard_seg = kMaxRanges;
    config_.discard_sector_alignment = static_cast<std::uint32_t>(physical / kBlkSectorSize);
    config_.max_write_zeroes_sectors = kMaxRangeSectors;
    config_.max_write_zeroes_seg = kMaxRanges;
    config_.write_zeroes_may_unmap = 1;
  }
  resize(disk_.size);
  io_.keep_file(disk_.file.get());
  if (disk_.direct) {
    io_.keep_file(disk_.direct.get());
  }
}

BlkDevice::~BlkDevice() {
  io_.forget_file(disk_.file.get());
  if (disk_.direct) {
    io_.forget_file(disk_.direct.get());
  }
}

std::span<const std::uint16_t> BlkDevice::max_queue_sizes() const {
  return kQueueSizes;
}

void BlkDevice::resize(std::uint64_t bytes) {
  disk_.size = bytes / config_.blk_size * config_.blk_size;
  config_.capacity = disk_.size / kBlkSectorSize;
  if (driver_ != nullptr) {
    driver_->config_changed();
  }
}

void BlkDevice::activate(std::vector<Queue> queues, std::uint64_t features,
                         DriverNotifier& driver) {
  queues_ = std::move(queues);
  write_through_ = (features & kBlkFeatureFlush) == 0;  // 5.2.6.2
  driver_ = &driver;
}

void BlkDevice::on_queue(std::uint16_t index) {
  requests_.sweep();
  Queue& queue = queues_.at(index);
  notify_later();
  for (std::uint16_t turn = 0; turn < kQueueSizes[0]; ++turn) {
    auto chain = queue.pop();
    if (!chain) {
      driver_->needs_reset();
      return;
    }
    if (!*chain) {
      return;
    }
    serve(std::move(**chain));
  }
  driver_->kick_again(index);
}

// One interrupt for all that is answered in this turn of the loop.
void BlkDevice::notify_later() {
  if (driver_ != nullptr && !notify_.pending()) {
    io_.defer(notify_);
  }
}

void BlkDevice::serve(DescriptorChain chain) {
  // 5.2.6: a header, data, and a status; where one ends and the next begins in the descriptors says
  // nothing (2.7.4).
  BlkRequestHeader header{};
  if (chain.writable_size() == 0) {
    ++counters_.requests;
    ++counters_.errors;
    return;  // no place for an answer: the chain goes back with nothing
  }
  if (chain.read(0, std::as_writable_bytes(std::span(&header, 1))) < sizeof header) {
    answer(queues_.front(), std::move(chain), BlkStatus::kIoError);
    return;
  }
  const std::size_t room = chain.writable_size() - 1;
  switch (header.type) {
    case BlkType::kIn:
      start_transfer(std::move(chain), header, room);
      return;
    case BlkType::kOut:
      start_transfer(std::move(chain), header, chain.readable_size() - sizeof header);
      return;
    case BlkType::kFlush:
      if (disk_.read_only) {
        answer(queues_.front(), std::move(chain), BlkStatus::kOk);
      } else {
        sync(start(std::move(chain), header.type));
      }
      return;
    case BlkType::kGetId: {
      std::array<char, kBlkIdSize> id{};
      if (room < id.size()) {
        answer(queues_.front(), std::move(chain), BlkStatus::kIoError);
        return;
      }
      disk_.id.copy(id.data(), id.size());
      chain.write(0, std::as_bytes(std::span(id)));
      answer(queues_.front(), std::move(chain), BlkStatus::kOk, id.size());
      return;
    }
    case BlkType::kDiscard:
    case BlkType::kWriteZeroes:
      start_ranges(std::move(chain), header.type);
      return;
  }
  answer(queues_.front(), std::move(chain), BlkStatus::kUnsupported);
}

void BlkDevice::answer(Queue& queue, DescriptorChain chain, BlkStatus status, std::size_t written) {
  ++counters_.requests;
  if (status != BlkStatus::kOk) {
    ++counters_.errors;
  }
  chain.write(chain.writable_size() - 1, std::as_bytes(std::span(&status, 1)));
  queue.push(std::move(chain), static_cast<std::uint32_t>(written + sizeof status));
  notify_later();
}

bool BlkDevice::in_disk(std::uint64_t sector, std::uint64_t bytes) const {
  const std::uint64_t block = config_.blk_size;
  return bytes % block == 0 && sector % (block / kBlkSectorSize) == 0 &&
         sector <= config_.capacity && bytes / kBlkSectorSize <= config_.capacity - sector;
}

BlkDevice::Request::Request(BlkDevice& device, Queue from, DescriptorChain buffers, BlkType what)
    : queue(std::move(from)),
      chain(std::move(buffers)),
      type(what),
      operation([this, &device](std::int32_t result) { device.on_done(*this, result); }) {}

BlkDevice::Request& BlkDevice::start(DescriptorChain chain, BlkType type) {
  return requests_.start(*this, queues_.front(), std::move(chain), type);
}

void BlkDevice::start_transfer(DescriptorChain chain, const BlkRequestHeader& header,
                               std::size_t size) {
  const bool forbidden = header.type == BlkType::kOut && disk_.read_only;
  if (forbidden || !in_disk(header.sector, size)) {
    answer(queues_.front(), std::move(chain), BlkStatus::kIoError);
    return;
  }
  if (size == 0) {
    answer(queues_.front(), std::move(chain), BlkStatus::kOk);
    return;
  }
  Request& request = start(std::move(chain), header.type);
  request.offset = header.sector * kBlkSectorSize;
  request.size = size;
  transfer(request);
}

// The next part of it, from where it got to.
void BlkDevice::transfer(Request& request) {
  const std::uint64_t offset = request.offset + request.done;
  const std::size_t size = std::min<std::uint64_t>(request.size - request.done, kMaxTransfer);
  const bool reads = request.type == BlkType::kIn;
  request.iovecs =
      reads ? request.chain.writable_iovecs(request.done, size)
            : request.chain.readable_iovecs(sizeof(BlkRequestHeader) + request.done, size);
  if (disk_.direct) {
    std::uintptr_t all = 0;
    for (const iovec& piece : request.iovecs) {
      all |= reinterpret_cast<std::uintptr_t>(piece.iov_base) | piece.iov_len;
    }
    if (request.copy || all % disk_.alignment != 0) {
      copy_aligned(request, std::min(size, kMaxCopy));
    }
  }
  if (reads) {
    io_.read(data_file(), request.iovecs, offset, request.operation);
  } else {
    io_.write(data_file(), request.iovecs, offset, request.operation);
  }
}

void BlkDevice::Free::operator()(std::byte* bytes) const {
  std::free(bytes);  // NOLINT(cppcoreguidelines-no-malloc): what aligned_alloc() gave
}

void BlkDevice::copy_aligned(Request& request, std::size_t size) {
  if (!request.copy) {
    request.copy.reset(static_cast<std::byte*>(std::aligned_alloc(kPhysicalBlock, kMaxCopy)));
    if (!request.copy) {
      throw std::bad_alloc();
    }
  }
  const std::span<std::byte> bytes(request.copy.get(), size);
  if (request.type == BlkType::kOut) {
    request.chain.read(sizeof(BlkRequestHeader) + request.done, bytes);
  }
  request.iovecs = {{bytes.data(), bytes.size()}};
}

// Where data goes to and comes from, always the same way: what is written past the page cache and
// what goes by it do not wait for each other.
int BlkDevice::data_file() const {
  return disk_.direct ? disk_.direct.get() : disk_.file.get();
}

// 5.2.6: discard and write zeroes name ranges in the request's data. All are checked before any is
// touched.
void BlkDevice::start_ranges(DescriptorChain chain, BlkType type) {
  const std::size_t size = chain.readable_size() - sizeof(BlkRequestHeader);
  const std::size_t count = size / sizeof(BlkRange);
  BlkStatus status = BlkStatus::kOk;
  if (disk_.read_only || count == 0 || count > kMaxRanges || size % sizeof(BlkRange) != 0) {
    status = BlkStatus::kIoError;
  }
  std::vector<BlkRange> ranges(status == BlkStatus::kOk ? count : 0);
  chain.read(sizeof(BlkRequestHeader), std::as_writable_bytes(std::span(ranges)));
  const std::uint32_t known = type == BlkType::kWriteZeroes ? kBlkRangeUnmap : 0;
  for (const BlkRange& range : ranges) {
    if ((range.flags & ~known) != 0) {
      status = BlkStatus::kUnsupported;  // 5.2.6.2
    } else if (range.sectors > kMaxRangeSectors ||
               !in_disk(range.sector, std::uint64_t{range.sectors} * kBlkSectorSize)) {
      status = BlkStatus::kIoError;
    }
    if (status != BlkStatus::kOk) {
      break;
    }
  }
  if (status != BlkStatus::kOk) {
    answer(queues_.front(), std::move(chain), status);
    return;
  }
  Request& request = start(std::move(chain), type);
  request.ranges = std::move(ranges);
  std::ranges::reverse(request.ranges);
  next_range(request);
}

void BlkDevice::next_range(Request& request) {
  while (!request.ranges.empty() && request.ranges.back().sectors == 0) {
    request.ranges.pop_back();
  }
  if (request.ranges.empty()) {
    complete(request);
    return;
  }
  const BlkRange& range = request.ranges.back();
  request.offset = range.sector * kBlkSectorSize;
  request.size = std::uint64_t{range.sectors} * kBlkSectorSize;
  request.done = 0;
  if (request.by_writing) {
    write_zeroes(request);
    return;
  }
  const bool keep_blocks =
      request.type == BlkType::kWriteZeroes && (range.flags & kBlkRangeUnmap) == 0;
  const int mode = keep_blocks ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE;
  io_.allocate(disk_.file.get(), mode | FALLOC_FL_KEEP_SIZE, request.offset, request.size,
               request.operation);
}

void BlkDevice::write_zeroes(Request& request) {
  request.iovecs.clear();
  std::uint64_t left = request.size - request.done;
  while (left > 0 && request.iovecs.size() < kMaxZeroIovecs) {
    const std::size_t piece = std::min<std::uint64_t>(left, kZeroBlock.size());
    // Only read from.
    request.iovecs.push_back({const_cast<std::byte*>(kZeroBlock.data()), piece});
    left -= piece;
  }
  io_.write(data_file(), request.iovecs, request.offset + request.done, request.operation);
}

void BlkDevice::on_done(Request& request, std::int32_t result) {
  const bool durable = request.syncing && on_synced(result);
  if (driver_ == nullptr) {
    requests_.finish(request);
    return;
  }
  if (request.syncing) {
    if (result == -EINTR) {
      sync(request);
      return;
    }
    flushes_ += durable ? 1 : 0;
    finish(request, durable ? BlkStatus::kOk : BlkStatus::kIoError);
    return;
  }
  switch (request.type) {
    case BlkType::kDiscard:
    case BlkType::kWriteZeroes:
      on_range(request, result);
      return;
    default:
      on_transferred(request, result);
      return;
  }
}

void BlkDevice::on_transferred(Request& request, std::int32_t result) {
  const auto bytes = static_cast<std::uint32_t>(std::max(result, 0));
  if (request.copy && request.type == BlkType::kIn) {
    request.chain.write(request.done, {request.copy.get(), bytes});
  }
  request.done += bytes;
  if (request.done == request.size) {
    complete(request);
  } else if (can_go_on(request, result)) {
    transfer(request);
  } else {
    finish(request, BlkStatus::kIoError);  // nothing more comes: the file is shorter than the disk
  }
}

// Past the page cache only behind whole blocks; another size is where the file ends.
bool BlkDevice::can_go_on(const Request& request, std::int32_t result) const {
  return (result > 0 || result == -EINTR) && (!disk_.direct || request.done % disk_.alignment == 0);
}

void BlkDevice::on_range(Request& request, std::int32_t result) {
  if (request.by_writing) {
    request.done += static_cast<std::uint32_t>(std::max(result, 0));
    if (request.done < request.size && can_go_on(request, result)) {
      write_zeroes(request);
      return;
    }
    result = request.done == request.size ? 0 : std::min(result, -1);
  }
  if (result == 0) {
    request.ranges.pop_back();
    next_range(request);
  } else if (result == -EINTR) {
    next_range(request);
  } else if (result != -EOPNOTSUPP || request.by_writing) {
    finish(request, BlkStatus::kIoError);
  } else if (request.type == BlkType::kDiscard) {
    finish(request, BlkStatus::kUnsupported);
  } else {
    // Not every file system makes zeroes by itself, but each takes them.
    request.by_writing = true;
    next_range(request);
  }
}

// All of it is done.
void BlkDevice::complete(Request& request) {
  if (write_through_ && request.type != BlkType::kIn) {
    sync(request);
  } else {
    finish(request, BlkStatus::kOk);
  }
}

void BlkDevice::sync(Request& request) {
  request.syncing = true;
  io_.sync(disk_.file.get(), request.operation);
}

// Whether all is durable that was answered before. Also of a driver that is gone.
bool BlkDevice::on_synced(std::int32_t result) {
  if (result < 0 && result != -EINTR && result != -ECANCELED) {
    lost_data_ = true;
  }
  return result == 0 && !lost_data_;
}

void BlkDevice::finish(Request& request, BlkStatus status) {
  std::size_t written = 0;
  if (request.type == BlkType::kIn) {
    written = request.done;
    counters_.bytes_read += request.done;
  } else if (request.type == BlkType::kOut) {
    counters_.bytes_written += request.done;
  }
  answer(request.queue, std::move(request.chain), status, written);
  requests_.finish(request);
}

void BlkDevice::pause(std::function<void()> done) {
  requests_.when_none([this, done = std::move(done)] {
    notify(queues_, driver_);  // now, so that nothing is left to do
    done();
  });
}

void BlkDevice::reset(std::function<void()> done) {
  for (Queue& queue : queues_) {
    queue.close();
  }
  queues_.clear();
  driver_ = nullptr;
  requests_.sweep();
  requests_.cancel(io_);
  requests_.when_none(std::move(done));
}

}  // namespace msb::virtio
