// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/fs_device.hpp"

#include <linux/fuse.h>

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

FsDevice::FsDevice(std::string_view tag, SharedTree tree, AsyncIo& io)
    : tree_(std::move(tree)), io_(io) {
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
  reads_.sweep();
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
  std::array<std::byte, kMaxFuseRequest> buffer;
  const std::size_t size = chain.read(0, buffer);
  const std::size_t room =
      chain.writable_size() - std::min(chain.writable_size(), sizeof(fuse_out_header));
  const FuseAnswer answer =
      serve_fuse(tree_, std::span(buffer).first(size), chain.readable_size(), room);
  std::uint64_t unique = 0;
  if (size >= sizeof(fuse_in_header)) {
    std::memcpy(&unique, &buffer[offsetof(fuse_in_header, unique)], sizeof unique);
  }
  if (const auto* read = std::get_if<FuseRead>(&answer)) {
    if (read->file->file.valid()) {
      start_read(queue, std::move(chain), unique, *read);
      return;
    }
    const auto text = std::as_bytes(std::span(read->file->text)).subspan(read->offset, read->size);
    counters_.bytes_read += text.size();
    const std::uint32_t used = write_reply(chain, unique, 0, text);
    push(queue, std::move(chain), 0, used);
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

FsDevice::Read::Read(FsDevice& device, Queue from, DescriptorChain buffers, std::uint64_t request,
                     const FuseRead& what)
    : queue(std::move(from)),
      chain(std::move(buffers)),
      unique(request),
      wanted(what),
      operation([this, &device](std::int32_t result) { device.on_read(*this, result); }) {}

void FsDevice::start_read(Queue& queue, DescriptorChain chain, std::uint64_t unique,
                          const FuseRead& request) {
  continue_read(reads_.start(*this, queue, std::move(chain), unique, request));
}

void FsDevice::continue_read(Read& read) {
  read.iovecs = read.chain.writable_iovecs(sizeof(fuse_out_header) + read.fetched,
                                           read.wanted.size - read.fetched);
  io_.read(read.wanted.file->file.get(), read.iovecs, read.wanted.offset + read.fetched,
           read.operation);
}

void FsDevice::on_read(Read& read, std::int32_t result) {
  read.fetched += static_cast<std::uint32_t>(std::max(result, 0));
  // A read may be interrupted, or give less than there is. The guest would take that for the end of
  // the file, for good; its end is where a read gives nothing, as when it was cut short meanwhile.
  const bool unfinished = result == -EINTR || (result > 0 && read.fetched < read.wanted.size);
  if (unfinished && driver_ != nullptr) {
    continue_read(read);
  } else {
    finish_read(read, std::min(result, 0));
  }
}

void FsDevice::finish_read(Read& read, std::int32_t error) {
  fuse_out_header header{};
  header.unique = read.unique;
  header.error = error;
  // The bytes are in place already.
  header.len = static_cast<std::uint32_t>(sizeof header + (error == 0 ? read.fetched : 0));
  read.chain.write(0, std::as_bytes(std::span(&header, 1)));
  counters_.bytes_read += read.fetched;
  push(read.queue, std::move(read.chain), error, header.len);
  if (driver_ != nullptr) {
    notify(queues_, driver_);
  }
  reads_.finish(read);
}

void FsDevice::pause(std::function<void()> done) {
  reads_.when_none(std::move(done));
}

void FsDevice::reset(std::function<void()> done) {
  for (Queue& queue : queues_) {
    queue.close();
  }
  queues_.clear();
  driver_ = nullptr;
  reads_.sweep();
  reads_.cancel(io_);
  reads_.when_none(std::move(done));
}

}  // namespace msb::virtio
