// SPDX-License-Identifier: Apache-2.0
#include "virtio/vsock/vsock_device.hpp"

#include <algorithm>
#include <bit>
#include <ranges>
#include <utility>

namespace msb::virtio {

namespace {
constexpr std::array<std::uint16_t, 3> kQueueSizes{256, 256, 16};
// RST packets that wait for a receive buffer. Beyond it no packets are taken, so a guest that
// provokes resets without giving buffers stalls itself.
constexpr std::size_t kMaxWaitingResets = 256;
}  // namespace

VsockDevice::VsockDevice(std::uint64_t guest_cid, AsyncIo& io, Accept accept)
    : io_(io),
      guest_cid_(guest_cid),
      accept_(std::move(accept)),
      config_(std::bit_cast<std::array<std::byte, 8>>(guest_cid)) {}

std::span<const std::uint16_t> VsockDevice::max_queue_sizes() const {
  return kQueueSizes;
}

void VsockDevice::activate(std::vector<Queue> queues, std::uint64_t /*features*/,
                           DriverNotifier& driver) {
  queues_ = std::move(queues);
  driver_ = &driver;
  send_packets();
}

void VsockDevice::connect(Fd socket, std::uint32_t guest_port) {
  discard_left();
  if (queues_.empty() || full()) {
    return;  // closing the socket refuses it
  }
  Key key{next_host_port_, guest_port};
  while (connections_.contains(key)) {
    ++key.host_port;
  }
  next_host_port_ = key.host_port + 1;
  auto connection = std::make_shared<VsockConnection>(static_cast<VsockConnectionOwner&>(*this),
                                                      std::move(socket), key);
  connections_.emplace(key, connection);
  connection->request();
}

void VsockDevice::on_queue(std::uint16_t index) {
  discard_left();
  if (index == kVsockRxQueue) {
    send_packets();
    take_packets();  // may have waited for room among the resets
  } else if (index == kVsockTxQueue) {
    take_packets();
  }
}

void VsockDevice::take_packets() {
  std::uint16_t left = kQueueSizes[kVsockTxQueue];
  while (!queues_.empty() && resets_.size() < kMaxWaitingResets) {
    if (left-- == 0) {
      driver_->kick_again(kVsockTxQueue);
      break;
    }
    auto chain = queues_[kVsockTxQueue].pop();
    if (!chain) {
      broken();
      return;
    }
    if (!*chain) {
      break;
    }
    VsockHeader header{};
    const std::size_t size = (*chain)->read(0, std::as_writable_bytes(std::span(&header, 1)));
    ++counters_.requests;
    if (size == sizeof header && header.length <= (*chain)->readable_size() - sizeof header) {
      counters_.bytes_written += header.op == VsockOp::kReadWrite ? header.length : 0;
      handle(header, **chain);
    } else {
      ++counters_.errors;
    }
    queues_[kVsockTxQueue].push(std::move(**chain), 0);
  }
  send_packets();
}

void VsockDevice::handle(const VsockHeader& header, const DescriptorChain& chain) {
  // 5.10.6.4: packets from or to another address are not ours to answer.
  if (header.src_cid != guest_cid_ || header.dst_cid != kVsockHostCid) {
    return;
  }
  const Key key{header.dst_port, header.src_port};
  const auto found = connections_.find(key);
  if (header.type != kVsockTypeStream) {
    if (header.op != VsockOp::kReset) {
      send_reset(key);  // 5.10.6: an unknown type is answered by a reset
    }
  } else if (header.op == VsockOp::kRequest) {
    if (found != connections_.end()) {
      send_reset(key);
      leave(key);
    } else {
      accept(header);
    }
  } else if (found != connections_.end()) {
    const auto connection =
        found->second;  // keeps it while it handles the packet, whatever it does
    connection->handle(header, chain);
  } else if (header.op != VsockOp::kReset) {
    send_reset(key);
  }
}

void VsockDevice::accept(const VsockHeader& header) {
  const Key key{header.dst_port, header.src_port};
  discard_left();
  std::optional<Fd> socket;
  if (!full()) {
    socket = accept_(key.host_port);
  }
  if (!socket) {
    send_reset(key);
    return;
  }
  auto connection = std::make_shared<VsockConnection>(static_cast<VsockConnectionOwner&>(*this),
                                                      std::move(*socket), key);
  connections_.emplace(key, connection);
  connection->accept(header);
}

// Connections that left count for as long as their sockets are open.
bool VsockDevice::full() const {
  return connections_.size() + left_.size() >= kMaxConnections;
}

void VsockDevice::want_buffer(VsockConnection& connection) {
  if (!std::exchange(connection.waiting, true)) {
    senders_.push_back(&connection);
  }
  send_packets();
}

void VsockDevice::send_reset(Key key) {
  resets_.push_back(key);
  send_packets();
}

// Hands receive buffers to whoever has something to send, one packet each in turn.
void VsockDevice::send_packets() {
  if (queues_.empty() || paused_ || std::exchange(sending_, true)) {
    return;  // sending makes connections want more buffers: the loop below sees to them
  }
  std::uint16_t left = kQueueSizes[kVsockRxQueue];
  while (!resets_.empty() || !senders_.empty()) {
    if (left-- == 0) {
      driver_->kick_again(kVsockRxQueue);
      break;
    }
    if (resets_.empty()) {
      VsockConnection& connection = *senders_.front();
      if (!connection.wants_buffer()) {
        connection.waiting = false;
        senders_.pop_front();
        continue;
      }
    }
    auto buffer = next_buffer();
    if (!buffer) {
      break;
    }
    if (!resets_.empty()) {
      const Key key = resets_.front();
      resets_.pop_front();
      send(std::move(*buffer), key, {.op = VsockOp::kReset});
      continue;
    }
    VsockConnection& connection = *senders_.front();
    senders_.pop_front();
    connection.waiting = false;
    connection.use_buffer(std::move(*buffer));
  }
  sending_ = false;
  notify(queues_, driver_);
}

std::optional<DescriptorChain> VsockDevice::next_buffer() {
  if (!spare_buffers_.empty()) {
    DescriptorChain buffer = std::move(spare_buffers_.back());
    spare_buffers_.pop_back();
    return buffer;
  }
  auto chain = queues_[kVsockRxQueue].pop();
  if (!chain) {
    broken();
    return std::nullopt;
  }
  return std::move(*chain);
}

void VsockDevice::give_buffer(DescriptorChain buffer) {
  if (!queues_.empty()) {
    spare_buffers_.push_back(std::move(buffer));
    send_packets();
  }
}

void VsockDevice::send(DescriptorChain buffer, Key key, VsockPacket packet) {
  const VsockHeader header{
      .src_cid = kVsockHostCid,
      .dst_cid = guest_cid_,
      .src_port = key.host_port,
      .dst_port = key.guest_port,
      .length = packet.length,
      .type = kVsockTypeStream,
      .op = packet.op,
      .flags = packet.flags,
      .buffer_allocation = VsockConnection::kBufferSize,
      .forward_count = packet.forward_count,
  };
  counters_.bytes_read += packet.length;
  const std::size_t written = buffer.write(0, std::as_bytes(std::span(&header, 1)));
  queues_[kVsockRxQueue].push(std::move(buffer),
                              static_cast<std::uint32_t>(written) + packet.length);
  if (!sending_) {
    notify(queues_, driver_);
  }
}

void VsockDevice::broken() {
  driver_->needs_reset();
}

void VsockDevice::leave(Key key) {
  const auto found = connections_.find(key);
  if (found != connections_.end()) {
    std::erase(senders_, found->second.get());
    left_.push_back(std::move(found->second));
    connections_.erase(found);
    left_.back()->close();
  }
}

void VsockDevice::on_rest() {
  if (reset_done_ &&
      std::ranges::all_of(left_, [](const auto& connection) { return connection->idle(); })) {
    std::exchange(reset_done_, nullptr)();
  }
  const auto reads = [](const auto& connection) { return connection->reading(); };
  if (pause_done_ && std::ranges::none_of(connections_ | std::views::values, reads) &&
      std::ranges::none_of(left_, reads)) {
    std::exchange(pause_done_, nullptr)();
  }
}

void VsockDevice::pause(std::function<void()> done) {
  paused_ = true;
  pause_done_ = std::move(done);
  on_rest();
}

void VsockDevice::discard_left() {
  std::erase_if(left_, [](const auto& connection) { return connection->idle(); });
}

void VsockDevice::reset(std::function<void()> done) {
  for (Queue& queue : queues_) {
    queue.close();
  }
  queues_.clear();
  driver_ = nullptr;
  senders_.clear();
  resets_.clear();
  spare_buffers_.clear();
  discard_left();
  while (!connections_.empty()) {
    leave(connections_.begin()->first);
  }
  reset_done_ = std::move(done);
  on_rest();
}

}  // namespace msb::virtio
