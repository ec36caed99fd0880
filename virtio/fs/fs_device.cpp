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

std::size_t reply_room(const DescriptorChain& chain) {
  return chain.writable_size() - std::min(chain.writable_size(), sizeof(fuse_out_header));
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
  std::uint64_t unique = 0;
  if (size >= sizeof(fuse_in_header)) {
    std::memcpy(&unique, &request_[offsetof(fuse_in_header, unique)], sizeof unique);
  }
  const std::span<const std::byte> request = std::span(request_).first(size);
  FuseServer::Begun begun = server_.begin(request, chain.readable_size(), reply_room(chain));
  Transfer& transfer = transfers_.start(*this, queue, std::move(chain), unique);
  if (begun.rest) {
    transfer.request.assign(request.begin(), request.end());
    transfer.rest = *begun.rest;
    transfer.driver = driver_;
    io_.offload([this, &transfer] { return work(transfer); }, transfer.operation);
  } else {
    obey(transfer, std::move(begun.answer));
  }
}

namespace {

// Reads what needs no waiting for; gives how much that is. Where the host's file system cannot tell
// what does, it is waited for here rather than on the loop's thread. `size` becomes less where the
// file ends.
Outcome<std::uint64_t> read_at_once(const DescriptorChain& chain, const FuseRead& read,
                                    std::uint64_t& size) {
  std::uint64_t moved = 0;
  int flags = RWF_NOWAIT;
  while (moved < size) {
    const auto iovecs = chain.writable_iovecs(sizeof(fuse_out_header) + moved, size - moved);
    const ssize_t got = ::preadv2(read.file, iovecs.data(), static_cast<int>(iovecs.size()),
                                  static_cast<off_t>(read.offset + moved), flags);
    if (got > 0) {
      moved += static_cast<std::uint64_t>(got);
    } else if (got == 0) {
      size = moved;
    } else if (errno == EOPNOTSUPP && flags != 0) {
      flags = 0;
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      return failed_call();
    }
  }
  return moved;
}

// A fuse_out_header before a payload that is in place already; gives what is written of both.
std::uint32_t write_header(DescriptorChain& chain, std::uint64_t unique, std::int32_t error,
                           std::uint64_t payload) {
  fuse_out_header header{};
  header.unique = unique;
  header.error = error;
  header.len = static_cast<std::uint32_t>(sizeof header + (error == 0 ? payload : 0));
  const bool fits = chain.write(0, std::as_bytes(std::span(&header, 1))) == sizeof header;
  return fits ? header.len : 0;
}

// A reply, as far as there is room for one of this kind.
std::uint32_t write_reply(DescriptorChain& chain, std::uint64_t unique, const FuseReply& reply) {
  const std::size_t payload = reply.error == 0 ? reply.payload.size() : 0;
  if (chain.writable_size() < sizeof(fuse_out_header) + payload) {
    return 0;
  }
  chain.write(sizeof(fuse_out_header), std::span(reply.payload).first(payload));
  return write_header(chain, unique, reply.error, payload);
}

FuseReply write_done(std::int32_t error, std::uint64_t moved) {
  if (error != 0) {
    return refuse(-error);
  }
  fuse_write_out out{};
  out.size = static_cast<std::uint32_t>(moved);
  return reply_with(out);
}

}  // namespace

// On the other thread: serves a request, moves what needs no waiting for, and gives it back to the
// driver if that was all, which need not wait for the loop. Whether the loop has more to do with
// it.
bool FsDevice::work(Transfer& transfer) {
  const DescriptorChain& chain = transfer.chain;
  transfer.answer =
      server_.finish(transfer.rest, transfer.request, chain.readable_size(), reply_room(chain));
  move_at_once(transfer);
  transfer.returned = return_at_once(transfer);
  if (transfer.returned) {
    // It may be a while before the loop looks at it; and to close a file may take a while.
    transfer.answer = FuseSilence{};
    transfer.request = {};
  }
  return !transfer.returned;
}

void FsDevice::move_at_once(Transfer& transfer) {
  const DescriptorChain& chain = transfer.chain;
  if (auto* read = std::get_if<FuseRead>(&transfer.answer)) {
    const auto moved = read_at_once(chain, *read, read->size);
    if (moved) {
      transfer.moved = *moved;
    } else {
      transfer.answer = refuse(moved.error());
    }
  } else if (const auto* write = std::get_if<FuseWrite>(&transfer.answer);
             write != nullptr &&
             (write->at_end || write->size <= kWrittenAtOnce || write->file->share->late_errors)) {
    const auto iovecs = chain.readable_iovecs(kFuseWriteHeader, write->size);
    ssize_t size = 0;
    do {
      size = ::pwritev2(write->file->file.get(), iovecs.data(), static_cast<int>(iovecs.size()),
                        static_cast<off_t>(write->offset), write->at_end ? RWF_APPEND : 0);
    } while (size < 0 && errno == EINTR);
    const std::int32_t error = size < 0 ? -errno : 0;
    transfer.kind = Transfer::Kind::kWrite;
    transfer.moved = static_cast<std::uint64_t>(std::max<ssize_t>(size, 0));
    transfer.answer = write_done(error, transfer.moved);
  }
}

bool FsDevice::return_at_once(Transfer& transfer) {
  std::uint32_t used = 0;
  if (const auto* reply = std::get_if<FuseReply>(&transfer.answer)) {
    transfer.error = reply->error;
    used = write_reply(transfer.chain, transfer.unique, *reply);
  } else if (const auto* read = std::get_if<FuseRead>(&transfer.answer)) {
    if (transfer.moved < read->size) {
      return false;
    }
    transfer.kind = Transfer::Kind::kRead;
    used = write_header(transfer.chain, transfer.unique, 0, transfer.moved);
  } else if (!std::holds_alternative<FuseSilence>(transfer.answer)) {
    return false;
  }
  transfer.queue.push(std::move(transfer.chain), used);
  if (transfer.queue.take_interrupt()) {
    transfer.driver->used_buffers();
  }
  return true;
}

// Does what an answer says, at once or in the course of time.
void FsDevice::obey(Transfer& transfer, FuseAnswer answer) {
  if (auto* read = std::get_if<FuseRead>(&answer)) {
    transfer.kind = Transfer::Kind::kRead;
    transfer.file = read->file;
    transfer.keep = std::move(read->keep);
    transfer.offset = read->offset;
    transfer.size = read->size;
    move(transfer);
  } else if (auto* write = std::get_if<FuseWrite>(&answer)) {
    transfer.kind = Transfer::Kind::kWrite;
    transfer.file = write->file->file.get();
    transfer.keep = std::move(write->file);
    transfer.offset = write->offset;
    transfer.size = write->size;
    move(transfer);
  } else if (auto* sync = std::get_if<FuseSync>(&answer)) {
    transfer.kind = Transfer::Kind::kSync;
    transfer.file = sync->file->file.get();
    transfer.keep = std::move(sync->file);
    sync->whole ? io_.sync_all(transfer.file, transfer.operation)
                : io_.sync(transfer.file, transfer.operation);
  } else if (const auto* reply = std::get_if<FuseReply>(&answer)) {
    finish(transfer, reply->error, write_reply(transfer.chain, transfer.unique, *reply));
  } else {
    finish(transfer, 0, 0);  // a request that has no answer
  }
}

FsDevice::Transfer::Transfer(FsDevice& device, Queue from, DescriptorChain buffers,
                             std::uint64_t request_number)
    : queue(std::move(from)),
      chain(std::move(buffers)),
      unique(request_number),
      operation([this, &device](std::int32_t result) { device.on_done(*this, result); }) {}

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

void FsDevice::on_done(Transfer& transfer, std::int32_t result) {
  if (transfer.returned) {
    count(transfer, transfer.error);
    return;
  }
  switch (transfer.kind) {
    case Transfer::Kind::kServe:
      if (result < 0 || driver_ == nullptr) {
        finish(transfer, result, 0);  // the driver is gone
      } else {
        obey(transfer, std::move(transfer.answer));
      }
      break;
    case Transfer::Kind::kSync:
      finish_transfer(transfer, std::min(result, 0));
      break;
    case Transfer::Kind::kRead:
    case Transfer::Kind::kWrite:
      on_moved(transfer, result);
      break;
  }
  if (driver_ != nullptr) {
    notify(queues_, driver_);
  }
}

void FsDevice::on_moved(Transfer& transfer, std::int32_t result) {
  transfer.moved += static_cast<std::uint32_t>(std::max(result, 0));
  // It may be interrupted, or move less than there is. The guest would take a short read for the
  // end of the file, for good; its end is where a read gives nothing, as when it was cut short
  // meanwhile.
  const bool unfinished = result == -EINTR || (result > 0 && transfer.moved < transfer.size);
  const bool served = transfer.keep == nullptr || !transfer.keep->share->ended;
  if (unfinished && served && driver_ != nullptr) {
    move(transfer);
    return;
  }
  // What was written before it failed is written; the next request will fail at once.
  const bool partly = transfer.kind == Transfer::Kind::kWrite && transfer.moved > 0;
  finish_transfer(transfer, partly ? 0 : std::min(result, 0));
}

void FsDevice::finish_transfer(Transfer& transfer, std::int32_t error) {
  finish(transfer, error,
         transfer.kind == Transfer::Kind::kWrite
             ? write_reply(transfer.chain, transfer.unique, write_done(error, transfer.moved))
             : write_header(transfer.chain, transfer.unique, error, transfer.moved));
}

void FsDevice::finish(Transfer& transfer, std::int32_t error, std::uint32_t used) {
  transfer.queue.push(std::move(transfer.chain), used);
  count(transfer, error);
}

void FsDevice::count(Transfer& transfer, std::int32_t error) {
  ++counters_.requests;
  counters_.errors += error != 0 ? 1 : 0;
  if (transfer.kind == Transfer::Kind::kRead) {
    counters_.bytes_read += transfer.moved;
  } else if (transfer.kind == Transfer::Kind::kWrite) {
    counters_.bytes_written += transfer.moved;
  }
  // It lives on until the next round; what it holds open need not.
  transfer.keep.reset();
  transfer.answer = FuseSilence{};
  transfers_.finish(transfer);
  settle_changes();
}

void FsDevice::pause(std::function<void()> done) {
  io_.hurry();
  transfers_.when_none(std::move(done));
}

void FsDevice::reset(std::function<void()> done) {
  for (Queue& queue : queues_) {
    queue.close();
  }
  queues_.clear();
  driver_ = nullptr;
  transfers_.sweep();
  io_.hurry();
  transfers_.cancel(io_);
  transfers_.when_none([this, done = std::move(done)] { forget(done); });
}

// What the driver had open is closed, where it was opened.
void FsDevice::forget(std::function<void()> done) {
  forgotten_ = std::move(done);
  io_.offload(
      [this] {
        server_.reset();
        return true;
      },
      forgetting_);
}

// --- changes of the shares ---

void FsDevice::add_share(std::string path, Fd root, bool read_only, ShareCache cache,
                         Changed done) {
  changes_.sweep();
  Change& change = changes_.start(*this, std::move(done));
  change.path = std::move(path);
  change.root = std::move(root);
  change.read_only = read_only;
  change.cache = cache;
  io_.offload(
      [this, &change] {
        change.opened = server_.open_share(std::move(change.root), change.read_only, change.cache);
        return true;
      },
      change.operation);
}

void FsDevice::remove_share(std::string_view path, Changed done) {
  changes_.sweep();
  auto share = server_.hide_share(path);
  if (share == nullptr) {
    done(fail("nothing is shared at \"{}\"", path));
    return;
  }
  Change& change = changes_.start(*this, std::move(done));
  change.ended = std::move(share);
  close(change);
}

void FsDevice::close(Change& change) {
  io_.offload(
      [this, &change] {
        server_.close_share(*change.ended);
        return true;
      },
      change.operation);
}

void FsDevice::on_changed(Change& change, std::int32_t result) {
  if (result < 0) {
    change.outcome = fail_errno(-result, "cannot change what is shared");
    change.closed = true;
  } else if (change.ended != nullptr) {
    change.closed = true;
    transfers_.for_each([&](Transfer& transfer) {
      if (transfer.keep != nullptr && transfer.keep->share == change.ended) {
        io_.cancel(transfer.operation);
      }
    });
  } else if (!change.opened) {
    change.outcome = std::unexpected(change.opened.error());
    change.closed = true;
  } else {
    change.outcome = server_.show_share(change.path, *change.opened);
    if (!change.outcome) {
      change.ended = change.opened->share;
      close(change);
      return;
    }
    change.closed = true;
  }
  settle_changes();
}

// Those that are done are so once nothing of a share that ended is under way.
void FsDevice::settle_changes() {
  std::vector<Change*> settled;
  changes_.for_each([&](Change& change) {
    bool used = false;
    transfers_.for_each([&](const Transfer& transfer) {
      used = used || (transfer.keep != nullptr && transfer.keep->share == change.ended);
    });
    if (change.closed && !used) {
      settled.push_back(&change);
    }
  });
  for (Change* change : settled) {
    change->ended.reset();  // its root is open no more
    change->opened = {};
    changes_.finish(*change);
    change->done(change->outcome);
  }
}

}  // namespace msb::virtio
