// SPDX-License-Identifier: Apache-2.0
#include "virtio/vsock/connection.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <utility>

namespace msb::virtio {

VsockConnection::VsockConnection(VsockConnectionOwner& owner, Fd socket, VsockConnectionKey key)
    : owner_(owner),
      socket_(std::move(socket)),
      key_(key),
      poll_([this](std::int32_t result) { on_poll(result); }),
      read_([this](std::int32_t result) { on_read(result); }),
      write_([this](std::int32_t result) { on_write(result); }) {}

void VsockConnection::request() {
  send_request_ = true;
  wake();
}

void VsockConnection::accept(const VsockHeader& request) {
  update_credit(request);
  state_ = State::kEstablished;
  send_response_ = true;
  wake();
  watch();
}

void VsockConnection::update_credit(const VsockHeader& packet) {
  peer_allocation_ = packet.buffer_allocation;
  peer_forwarded_ = packet.forward_count;
}

std::uint32_t VsockConnection::credit() const {
  // Counters wrap at 2^32. A guest that claims to have forwarded more than it got has no credit to
  // give.
  const std::uint32_t under_way = sent_ - peer_forwarded_;
  return under_way >= peer_allocation_ ? 0 : peer_allocation_ - under_way;
}

void VsockConnection::handle(const VsockHeader& packet, const DescriptorChain& chain) {
  update_credit(packet);
  if (packet.op == VsockOp::kReset) {
    // What the guest sent before still reaches the host; then the host sees the end.
    state_ = State::kClosed;
    guest_ended_ = true;
    write_more();
    return;
  }
  if (packet.op == VsockOp::kResponse && state_ == State::kRequested) {
    state_ = State::kEstablished;
    const std::string greeting = fmt::format("OK {}\n", key_.host_port);
    const auto bytes = std::as_bytes(std::span(greeting));
    incoming_.assign(bytes.begin(), bytes.end());
    greeting_ = bytes.size();
    write_more();
    watch();
    return;
  }
  if (state_ != State::kEstablished) {
    end();
    return;
  }
  switch (packet.op) {
    case VsockOp::kReadWrite:
      take_payload(packet, chain);
      break;
    case VsockOp::kShutdown:
      // 5.10.6.6.1: the flags are hints that only ever accumulate.
      if ((packet.flags & kVsockShutdownReceive) != 0 && !guest_deaf_) {
        guest_deaf_ = true;
        ::shutdown(socket_.get(), SHUT_RD);
      }
      guest_ended_ = guest_ended_ || (packet.flags & kVsockShutdownSend) != 0;
      write_more();
      break;
    case VsockOp::kCreditRequest:
      send_credit_ = true;
      break;
    case VsockOp::kCreditUpdate:
      break;
    default:
      end();
      break;
  }
  wake();
}

void VsockConnection::take_payload(const VsockHeader& packet, const DescriptorChain& chain) {
  const std::size_t under_way = incoming_.size() + writing_.size() - written_ - greeting_;
  if (guest_ended_ || under_way + packet.length > kBufferSize) {
    end();  // bytes after the end, or more than the credit it had
    return;
  }
  if (host_deaf_) {
    count_forwarded(packet.length);
    return;
  }
  const std::size_t start = incoming_.size();
  incoming_.resize(start + packet.length);
  chain.read(sizeof(VsockHeader), std::span(incoming_).subspan(start));
  write_more();
}

// Writes what has come from the guest; once all is written, passes on the end of the guest's
// stream.
void VsockConnection::write_more() {
  if (write_.pending()) {
    return;
  }
  if (written_ == writing_.size()) {
    writing_.clear();
    written_ = 0;
    writing_.swap(incoming_);
  }
  if (!writing_.empty()) {
    write_iovec_ = {writing_.data() + written_, writing_.size() - written_};
    owner_.io().write(socket_.get(), {&write_iovec_, 1}, AsyncIo::kNoOffset, write_);
  } else if (state_ == State::kClosed) {
    owner_.leave(key_);
  } else if ((guest_ended_ || host_deaf_) && (host_ended_ || guest_deaf_)) {
    end();  // 5.10.6.6: a shutdown of both directions is answered by a reset
  } else if (guest_ended_) {
    ::shutdown(socket_.get(), SHUT_WR);
  }
}

void VsockConnection::on_write(std::int32_t result) {
  if (left()) {
    return;
  }
  if (result <= 0) {
    stop_writing();
    return;
  }
  const auto count = static_cast<std::size_t>(result);
  const std::size_t ours = std::min(greeting_, count);
  greeting_ -= ours;
  written_ += count;
  count_forwarded(count - ours);
  write_more();
}

// The host takes no more bytes: the guest's are dropped, and the host's still go to the guest until
// their end.
void VsockConnection::stop_writing() {
  host_deaf_ = true;
  count_forwarded(incoming_.size() + writing_.size() - written_ - greeting_);
  incoming_.clear();
  writing_.clear();
  written_ = 0;
  greeting_ = 0;
  write_more();
}

void VsockConnection::count_forwarded(std::size_t bytes) {
  forwarded_ += static_cast<std::uint32_t>(bytes);
  // Often enough that the guest never waits for credit, seldom enough that most of it rides on data
  // packets.
  if (forwarded_ - advertised_ >= kBufferSize / 4) {
    send_credit_ = true;
    wake();
  }
}

void VsockConnection::watch() {
  if (!poll_.pending() && state_ == State::kEstablished) {
    // After the host's last byte only its complete close is of interest, which is reported unasked
    // as POLLHUP.
    owner_.io().poll(socket_.get(), host_ended_ ? 0 : POLLIN, poll_);
  }
}

void VsockConnection::on_poll(std::int32_t result) {
  if (left()) {
    return;
  }
  if (result < 0 || (host_ended_ && (result & (POLLHUP | POLLERR)) != 0)) {
    end();
    return;
  }
  if (host_ended_) {
    // io_uring reports the end of the host's bytes (POLLRDHUP) unasked as well, and would do so
    // again and again. A complete close later on shows when the guest writes.
    return;
  }
  readable_ = true;
  wake();
}

bool VsockConnection::can_read() const {
  return readable_ && !reading_ && !guest_deaf_ && !host_ended_ && credit() > 0;
}

bool VsockConnection::wants_buffer() const {
  if (state_ == State::kRequested) {
    return send_request_;
  }
  return state_ == State::kEstablished && (send_response_ || send_credit_ || can_read());
}

void VsockConnection::wake() {
  if (wants_buffer()) {
    owner_.want_buffer(*this);
  }
}

void VsockConnection::use_buffer(DescriptorChain buffer) {
  VsockPacket packet;
  if (std::exchange(send_request_, false)) {
    packet.op = VsockOp::kRequest;
  } else if (std::exchange(send_response_, false)) {
    packet.op = VsockOp::kResponse;
  } else if (!can_read()) {
    packet.op = VsockOp::kCreditUpdate;
  } else {
    read_iovecs_ = buffer.writable_iovecs(sizeof(VsockHeader), credit());
    if (read_iovecs_.empty()) {
      wake();  // a buffer with no room behind the header goes back to the guest empty; the next may
               // have some
      return;
    }
    reading_ = std::move(buffer);
    owner_.io().read(socket_.get(), read_iovecs_, AsyncIo::kNoOffset, read_);
    return;
  }
  send_credit_ = false;  // every packet carries the counters
  advertised_ = forwarded_;
  packet.forward_count = forwarded_;
  owner_.send(std::move(buffer), key_, packet);
  wake();
}

void VsockConnection::on_read(std::int32_t result) {
  // Moved out first: a device that resets counts on no buffer being held once the operation is
  // over.
  std::optional<DescriptorChain> buffer = std::exchange(reading_, std::nullopt);
  if (left_) {
    owner_.give_buffer(std::move(*buffer));
    left();
  } else {
    on_read_into(std::move(*buffer), result);
  }
  owner_.on_rest();
}

void VsockConnection::on_read_into(DescriptorChain buffer, std::int32_t result) {
  readable_ = false;
  if (result < 0) {
    owner_.give_buffer(std::move(buffer));
    end();
    return;
  }
  send_credit_ = false;
  advertised_ = forwarded_;
  if (result == 0) {
    host_ended_ = true;
    owner_.send(
        std::move(buffer), key_,
        {.op = VsockOp::kShutdown, .flags = kVsockShutdownSend, .forward_count = forwarded_});
    write_more();
  } else {
    const auto length = static_cast<std::uint32_t>(result);
    sent_ += length;
    owner_.send(std::move(buffer), key_,
                {.op = VsockOp::kReadWrite, .length = length, .forward_count = forwarded_});
  }
  watch();
}

void VsockConnection::end() {
  if (state_ != State::kClosed) {
    owner_.send_reset(key_);
  }
  owner_.leave(key_);
}

void VsockConnection::close() {
  state_ = State::kClosed;
  // The host sees the end at once, also while an operation still holds the socket.
  ::shutdown(socket_.get(), SHUT_RDWR);
  for (Operation* op : {&poll_, &read_, &write_}) {
    owner_.io().cancel(*op);
  }
  left_ = true;
  left();
}

// Whether the connection was taken out of the device; lets go of the socket when its last operation
// has completed.
bool VsockConnection::left() {
  if (!left_) {
    return false;
  }
  if (idle()) {
    socket_.reset();
    owner_.on_rest();
  }
  return true;
}

}  // namespace msb::virtio
