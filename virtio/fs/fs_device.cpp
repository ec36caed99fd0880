// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/fs_device.hpp"

#include <linux/fuse.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace msb::virtio {

namespace {
// A chain is at most as long as its queue, and a request has kFuseMaxPages pages and headers.
constexpr std::array<std::uint16_t, 2> kQueueSizes{64, 512};
static_assert(kQueueSizes[kFsFirstRequestQueue] > kFuseMaxPages + 4);
static_assert(kFuseWriteHeader == sizeof(fuse_in_header) + sizeof(fuse_write_in));

// Writing into the host's page cache is a copy: a smaller one is done before the kernel could have
// given it to somebody else.
constexpr std::uint32_t kWrittenAtOnce = 128 * 1024;

// Writes fuse_out_header and, on success, the payload; gives what to report as used length.
std::uint32_t write_reply(const DescriptorChain& chain, std::uint64_t unique, std::int32_t error,
                          std::span<const std::byte> payload) {
  fuse_out_header header{};
  const std::size_t length = sizeof header + (error == 0 ? payload.size() : 0);
  if (chain.writable_size() < length) {
    return 0;  // no room for an answer of this kind
  }
  header.len = static_cast<std::uint32_t>(length);
  header.error = error;
  header.unique = unique;
  chain.write(0, std::as_bytes(std::span(&header, 1)));
  if (error == 0) {
    chain.write(sizeof header, payload);
  }
  return header.len;
}

}  // namespace

FsDevice::FsDevice(std::string_view tag, FuseServer server, AsyncIo& io)
    : server_(std::move(server)), io_(io), request_(kMaxFuseRequest) {
  std::memcpy(config_.tag, tag.data(), std::min(tag.size(), kFsTagSize));
  config_.request_queues = 1;
}

std::span<const std::uint16_t> FsDevice::max_queue_sizes() const {
  return kQueueSizes;
}

void FsDevice::activate(std::vector<Queue> queues, std::uint64_t /*features*/,
                        DriverNotifier& driver) {
  queues_ = std::move(queues);
  driver_ = &driver;
}

void FsDevice::on_queue(std::uint16_t index) {
  transfers_.sweep();
  Queue& queue = queues_.at(index);
  for (std::uint16_t turn = 0; turn < kQueueSizes.at(index); ++turn) {
    auto chain = queue.pop();
    if (!chain) {
      driver_->needs_reset();
      return;
    }
    if (!*chain) {
      notify(queues_, driver_);
      return;
    }
    serve(queue, std::move(**chain));
  }
  driver_->kick_again(index);
  notify(queues_, driver_);
}

void FsDevice::serve(Queue& queue, DescriptorChain chain) {
  const std::size_t size = chain.read(0, request_);
  const std::size_t room =
      chain.writable_size() - std::min(chain.writable_size(), sizeof(fuse_out_header));
  const FuseAnswer answer =
      server_.serve(std::span(request_).first(size), chain.readable_size(), room);
  std::uint64_t unique = 0;
  if (size >= sizeof(fuse_in_header)) {
    std::memcpy(&unique, &request_[offsetof(fuse_in_header, unique)], sizeof unique);
  }
  if (const auto* read = std::get_if<FuseRead>(&answer)) {
    Transfer& transfer = start(queue, std::move(chain), unique, Transfer::Kind::kRead, read->keep);
    transfer.file = read->file;
    transfer.offset = read->offset;
    transfer.size = read->size;
    move(transfer);
  } else if (const auto* wanted = std::get_if<FuseWrite>(&answer)) {
    write(queue, std::move(chain), unique, *wanted);
  } else if (const auto* sync = std::get_if<FuseSync>(&answer)) {
    Transfer& transfer = start(queue, std::move(chain), unique, Transfer::Kind::kSync, sync->file);
    transfer.file = sync->file->file.get();
    sync->whole ? io_.sync_all(transfer.file, transfer.operation)
                : io_.sync(transfer.file, transfer.operation);
  } else if (const auto* reply = std::get_if<FuseReply>(&answer)) {
    const std::uint32_t used = write_reply(chain, unique, reply->error, reply->payload);
    push(queue, std::move(chain), reply->error, used);
  } else {
    push(queue, std::move(chain), 0, 0);  // a request that has no answer
  }
}

void FsDevice::push(Queue& queue, DescriptorChain chain, std::int32_t error, std::uint32_t used) {
  ++counters_.requests;
  counters_.errors += error != 0 ? 1 : 0;
  queue.push(std::move(chain), used);
}

FsDevice::Transfer::Transfer(FsDevice& device, Queue from, DescriptorChain buffers,
                             std::uint64_t request, Kind what)
    : queue(std::move(from)),
      chain(std::move(buffers)),
      unique(request),
      kind(what),
      operation([this, &device](std::int32_t result) { device.on_moved(*this, result); }) {}

FsDevice::Transfer& FsDevice::start(Queue& queue, DescriptorChain chain, std::uint64_t unique,
                                    Transfer::Kind kind, std::shared_ptr<const OpenFile> keep) {
  Transfer& transfer = transfers_.start(*this, queue, std::move(chain), unique, kind);
  transfer.keep = std::move(keep);
  return transfer;
}

void FsDevice::write(Queue& queue, DescriptorChain chain, std::uint64_t unique,
                     const FuseWrite& wanted) {
  const int file = wanted.file->file.get();
  if (wanted.at_end || wanted.size <= kWrittenAtOnce) {
    const auto iovecs = chain.readable_iovecs(kFuseWriteHeader, wanted.size);
    ssize_t written = 0;
    do {
      written = ::pwritev2(file, iovecs.data(), static_cast<int>(iovecs.size()),
                           static_cast<off_t>(wanted.offset), wanted.at_end ? RWF_APPEND : 0);
    } while (written < 0 && errno == EINTR);
    answer_write(queue, std::move(chain), unique, written < 0 ? -errno : written);
    return;
  }
  Transfer& transfer = start(queue, std::move(chain), unique, Transfer::Kind::kWrite, wanted.file);
  transfer.file = file;
  transfer.offset = wanted.offset;
  transfer.size = wanted.size;
  move(transfer);
}

void FsDevice::answer_write(Queue& queue, DescriptorChain chain, std::uint64_t unique,
                            std::int64_t result) {
  const auto error = static_cast<std::int32_t>(std::min<std::int64_t>(result, 0));
  fuse_write_out out{};
  out.size = static_cast<std::uint32_t>(std::max<std::int64_t>(result, 0));
  counters_.bytes_written += out.size;
  const std::uint32_t used = write_reply(chain, unique, error, std::as_bytes(std::span(&out, 1)));
  push(queue, std::move(chain), error, used);
}

// The rest of a read or write.
void FsDevice::move(Transfer& transfer) {
  const std::uint64_t left = transfer.size - transfer.moved;
  if (transfer.kind == Transfer::Kind::kRead) {
    transfer.iovecs =
        transfer.chain.writable_iovecs(sizeof(fuse_out_header) + transfer.moved, left);
    io_.read(transfer.file, transfer.iovecs, transfer.offset + transfer.moved, transfer.operation);
  } else {
    transfer.iovecs = transfer.chain.readable_iovecs(kFuseWriteHeader + transfer.moved, left);
    io_.write(transfer.file, transfer.iovecs, transfer.offset + transfer.moved, transfer.operation);
  }
}

void FsDevice::on_moved(Transfer& transfer, std::int32_t result) {
  if (transfer.kind == Transfer::Kind::kSync) {
    finish(transfer, std::min(result, 0));
    return;
  }
  transfer.moved += static_cast<std::uint32_t>(std::max(result, 0));
  // It may be interrupted, or move less than there is. The guest would take a short read for the
  // end of the file, for good; its end is where a read gives nothing, as when it was cut short
  // meanwhile.
  const bool unfinished = result == -EINTR || (result > 0 && transfer.moved < transfer.size);
  if (unfinished && driver_ != nullptr) {
    move(transfer);
    return;
  }
  // What was written before it failed is written; the next request will fail at once.
  const bool partly = transfer.kind == Transfer::Kind::kWrite && transfer.moved > 0;
  finish(transfer, partly ? 0 : std::min(result, 0));
}

void FsDevice::finish(Transfer& transfer, std::int32_t error) {
  if (transfer.kind == Transfer::Kind::kWrite) {
    answer_write(transfer.queue, std::move(transfer.chain), transfer.unique,
                 error < 0 ? error : static_cast<std::int64_t>(transfer.moved));
  } else {
    fuse_out_header header{};
    header.unique = transfer.unique;
    header.error = error;
    // The bytes are in place already.
    header.len = static_cast<std::uint32_t>(sizeof header + (error == 0 ? transfer.moved : 0));
    const std::uint32_t used =
        transfer.chain.write(0, std::as_bytes(std::span(&header, 1))) == sizeof header ? header.len
                                                                                       : 0;
    counters_.bytes_read += transfer.moved;
    push(transfer.queue, std::move(transfer.chain), error, used);
  }
  transfer.keep.reset();
  if (driver_ != nullptr) {
    notify(queues_, driver_);
  }
  transfers_.finish(transfer);
}

void FsDevice::pause(std::function<void()> done) {
  transfers_.when_none(std::move(done));
}

void FsDevice::reset(std::function<void()> done) {
  for (Queue& queue : queues_) {
    queue.close();
  }
  queues_.clear();
  driver_ = nullptr;
  transfers_.sweep();
  transfers_.cancel(io_);
  transfers_.when_none([this, done = std::move(done)] {
    server_.reset();
    done();
  });
}

}  // namespace msb::virtio
