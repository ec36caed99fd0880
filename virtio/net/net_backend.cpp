// SPDX-License-Identifier: Apache-2.0
#include "virtio/net/net_backend.hpp"

#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "virtio/net/wire.hpp"

namespace msb::virtio {

namespace {

constexpr std::size_t kLength = 4;              // bytes, in front of a frame
constexpr std::size_t kMaxStreamFrame = 65535;  // which passt has room for
constexpr int kSendBuffer = 512 * 1024;         // bytes; the kernel gives what it allows, twice
constexpr std::size_t kMostAtOnce = 1 << 20;    // bytes that are sent before the socket was empty
constexpr std::size_t kFrameOverhead = 8192;    // more than the kernel adds to a frame
// Several frames of the largest size, so that a system call gets more than one.
constexpr std::size_t kInputSize = 4 * (kLength + kMaxFrame);

bool is_temporary(int error) {
  return error == EAGAIN || error == EINTR || error == ENOBUFS || error == ENOMEM;
}

}  // namespace

// --- tap ---

std::uint64_t TapBackend::features() const {
  return kNetFeatureChecksum | kNetFeatureHostTso4 | kNetFeatureHostTso6 | kNetFeatureHostEcn |
         kNetFeatureGuestChecksum | kNetFeatureGuestTso4 | kNetFeatureGuestTso6 |
         kNetFeatureGuestEcn;
}

void TapBackend::set_features(std::uint64_t features) {
  constexpr std::array<std::pair<std::uint64_t, unsigned>, 4> kOffloads{
      {{kNetFeatureGuestChecksum, TUN_F_CSUM},
       {kNetFeatureGuestTso4, TUN_F_TSO4},
       {kNetFeatureGuestTso6, TUN_F_TSO6},
       {kNetFeatureGuestEcn, TUN_F_TSO_ECN}}};
  // 5.1.3.1: segments need checksums. What the driver before this one had must not stay.
  if ((features & kNetFeatureGuestChecksum) == 0) {
    features = 0;
  }
  unsigned long offloads = 0;
  for (const auto& [feature, offload] : kOffloads) {
    offloads |= (features & feature) != 0 ? offload : 0U;
  }
  if (::ioctl(tap_.get(), TUNSETOFFLOAD, offloads) != 0) {
    ::ioctl(tap_.get(), TUNSETOFFLOAD, 0UL);  // slower, and right
  }
}

NetBackend::Sent TapBackend::send(std::span<const iovec> pieces) {
  const ssize_t sent = ::writev(tap_.get(), pieces.data(), static_cast<int>(pieces.size()));
  if (sent >= 0) {
    return Sent::kDone;
  }
  if (errno == EAGAIN) {
    return Sent::kFull;
  }
  // EIO: the device is down, which may end. EBADFD: it was removed.
  return errno == EBADFD ? Sent::kGone : Sent::kLost;
}

NetBackend::Received TapBackend::receive() {
  NetHeader header{};
  frame_.resize(kMaxFrame);
  const std::array<iovec, 2> pieces{{{&header, sizeof header}, {frame_.data(), frame_.size()}}};
  const InPlace received = receive_in_place(pieces);
  if (received.outcome != Outcome::kFrame) {
    return {received.outcome, {}, {}};
  }
  return {Outcome::kFrame, header, std::span(frame_).first(received.size - sizeof header)};
}

NetBackend::InPlace TapBackend::receive_in_place(std::span<const iovec> pieces) {
  const ssize_t size = ::readv(tap_.get(), pieces.data(), static_cast<int>(pieces.size()));
  if (size >= static_cast<ssize_t>(sizeof(NetHeader))) {
    return {Outcome::kFrame, static_cast<std::size_t>(size)};
  }
  return {size < 0 && errno == EBADFD ? Outcome::kGone : Outcome::kNothing, 0};
}

// --- stream ---

StreamBackend::StreamBackend(Fd socket) : socket_(std::move(socket)), input_(kInputSize) {
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &kSendBuffer, sizeof kSendBuffer);
  int capacity = 0;
  socklen_t size = sizeof capacity;
  ::getsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &capacity, &size);
  capacity_ = static_cast<std::size_t>(capacity);
}

// The other side takes frames apart and sends on what is in them, over a socket of its own: it
// needs no checksums, and theirs need no check, since memory does not damage them on the way.
std::uint64_t StreamBackend::features() const {
  return kNetFeatureChecksum | kNetFeatureGuestChecksum;
}

void StreamBackend::count_room() {
  int queued = 0;
  ::ioctl(socket_.get(), SIOCOUTQ, &queued);
  if (queued == 0) {
    since_empty_ = 0;
  }
  const std::size_t free = capacity_ - std::min(capacity_, static_cast<std::size_t>(queued));
  room_ = std::min(free, kMostAtOnce - std::min(kMostAtOnce, since_empty_));
}

NetBackend::Sent StreamBackend::send(std::span<const iovec> pieces) {
  std::size_t size = 0;
  for (const iovec& piece : pieces.subspan(1)) {
    size += piece.iov_len;
  }
  const std::size_t cost = size + kFrameOverhead;
  if (gone_ || size > kMaxStreamFrame || cost > capacity_) {
    return gone_ ? Sent::kGone : Sent::kLost;
  }
  if (cost > room_) {
    count_room();
  }
  if (cost > room_) {
    // A socket is writable while it is filled to a quarter, also when that is not enough.
    const bool writable = capacity_ - room_ <= capacity_ / 4;
    return writable || since_empty_ + cost > kMostAtOnce ? Sent::kBusy : Sent::kFull;
  }
  std::array<std::byte, kLength> length{};
  store32(length, 0, static_cast<std::uint32_t>(size));
  pieces_.assign(pieces.begin(), pieces.end());
  pieces_[0] = {length.data(), length.size()};
  msghdr message{};
  message.msg_iov = pieces_.data();
  message.msg_iovlen = pieces_.size();
  const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent == static_cast<ssize_t>(kLength + size)) {
    room_ -= cost;
    since_empty_ += kLength + size;
    return Sent::kDone;
  }
  room_ = 0;
  if (sent < 0 && is_temporary(errno)) {
    return Sent::kBusy;
  }
  gone_ = true;  // also when a part was sent, behind which nothing would be what it is
  return Sent::kGone;
}

NetBackend::Received StreamBackend::receive() {
  while (!gone_) {
    const auto waiting = unread();
    if (waiting.size() >= kLength) {
      const std::size_t length = load32(waiting, 0);
      if (length < kEthernetHeader || length > kMaxFrame) {
        gone_ = true;
        break;
      }
      if (waiting.size() >= kLength + length) {
        begin_ += kLength + length;
        return {Outcome::kFrame,
                {.flags = kNetHeaderDataValid,
                 .gso_type = kNetGsoNone,
                 .header_length = 0,
                 .gso_size = 0,
                 .checksum_start = 0,
                 .checksum_offset = 0,
                 .buffers = 0},
                waiting.subspan(kLength, length)};
      }
    }
    if (begin_ > 0) {
      std::memmove(input_.data(), input_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    const ssize_t got =
        ::recv(socket_.get(), input_.data() + end_, input_.size() - end_, MSG_DONTWAIT);
    if (got > 0) {
      end_ += static_cast<std::size_t>(got);
    } else if (got < 0 && is_temporary(errno)) {
      return {};
    } else {
      gone_ = true;
    }
  }
  return {Outcome::kGone, {}, {}};
}

}  // namespace msb::virtio
