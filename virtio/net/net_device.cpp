// SPDX-License-Identifier: Apache-2.0
#include "virtio/net/net_device.hpp"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "virtio/net/wire.hpp"

namespace msb::virtio {

namespace {

constexpr std::array<std::uint16_t, 2> kQueueSizes{512, 512};
// Frames of one direction before others have their turn.
constexpr int kFramesAtATime = 256;
constexpr std::size_t kMaxAnswers = 64;
// Until a backend that is busy is asked again, nanoseconds: it needs a moment, or its process
// hangs.
constexpr std::uint64_t kLeastBusyWait = 100'000;
constexpr std::uint64_t kMostBusyWait = 20'000'000;
// Of an answer, nanoseconds: longer than it takes to look for a socket, and short to whoever waits.
constexpr std::uint64_t kHold = 100'000'000;
// What a rate lets through at once: a tenth of a second of it, and a frame of any size.
constexpr std::uint64_t kBurstPart = 10;
// Denials that are told: a program that tries all ports is not worth a line for each.
constexpr std::uint64_t kDenialsPerSecond = 50;
constexpr std::uint64_t kDenialBurst = 200;

TokenBucket bucket(std::uint64_t rate) {
  return {rate, std::max<std::uint64_t>(rate / kBurstPart, kMaxFrame)};
}

}  // namespace

NetDevice::NetDevice(NetOptions options, std::unique_ptr<NetBackend> backend, FrameFilter filter,
                     AsyncIo& io)
    : options_(std::move(options)),
      backend_(std::move(backend)),
      filter_(std::move(filter)),
      io_(io),
      features_(kNetFeatureMac | kNetFeatureMtu | kNetFeatureMergeableBuffers |
                backend_->features()),
      busy_wait_(kLeastBusyWait),
      send_tokens_(bucket(options_.send_rate)),
      receive_tokens_(bucket(options_.receive_rate)),
      denial_tokens_(kDenialsPerSecond, kDenialBurst),
      readable_([this](std::int32_t result) { on_polled(result, kNetReceiveQueue); }),
      writable_([this](std::int32_t result) { on_polled(result, kNetTransmitQueue); }),
      send_timer_([this](std::int32_t result) { on_time(result, kNetTransmitQueue); }),
      receive_timer_([this](std::int32_t result) { on_time(result, kNetReceiveQueue); }),
      held_timer_([this](std::int32_t result) {
        if (result == -ETIME) {
          release_overdue();
        }
      }) {
  std::ranges::copy(options_.mac, config_.mac);
  config_.mtu = options_.mtu;
  config_.max_virtqueue_pairs = 1;
}

std::span<const std::uint16_t> NetDevice::max_queue_sizes() const {
  return kQueueSizes;
}

void NetDevice::activate(std::vector<Queue> queues, std::uint64_t features,
                         DriverNotifier& driver) {
  queues_ = std::move(queues);
  accepted_ = features;
  driver_ = &driver;
  if (backend_ != nullptr) {
    backend_->set_features(features);
  }
  receive();
}

void NetDevice::on_queue(std::uint16_t index) {
  if (index == kNetReceiveQueue) {
    receive();
  } else if (index == kNetTransmitQueue) {
    send();
  }
}

// --- the guest's frames ---

void NetDevice::send() {
  int left = kFramesAtATime;
  while (active() && old_backends_.empty() && !writable_.pending() && !send_timer_.pending()) {
    if (left-- == 0) {
      driver_->kick_again(kNetTransmitQueue);
      break;
    }
    std::optional<DescriptorChain> chain = std::exchange(unsent_, std::nullopt);
    if (!chain) {
      auto popped = queues_[kNetTransmitQueue].pop();
      if (!popped) {
        broken();
        break;
      }
      if (!*popped) {
        break;
      }
      chain = std::move(*popped);
    }
    if (send_frame(*chain) == Next::kWait) {
      unsent_ = std::move(chain);
      break;
    }
    queues_[kNetTransmitQueue].push(std::move(*chain), 0);
  }
  if (!answers_.empty()) {
    receive();
  }
  notify(queues_, driver_);
}

// What is checked is what is sent: headers are copied once, and only what is behind them comes from
// the guest's memory.
NetDevice::Next NetDevice::send_frame(DescriptorChain& chain) {
  NetHeader header{};
  const std::size_t total = chain.readable_size();
  if (total < sizeof header + kEthernetHeader || total > sizeof header + kMaxFrame) {
    ++counters_.requests;
    ++counters_.errors;
    ++report_.malformed;
    return Next::kGoOn;
  }
  const std::size_t size = total - sizeof header;
  const std::uint64_t now = options_.clock();
  if (!std::exchange(paid_, true) && !send_tokens_.take(size, now)) {
    paid_ = false;
    io_.timeout(send_tokens_.wait(), send_timer_);
    return Next::kWait;
  }
  chain.read(0, std::as_writable_bytes(std::span(&header, 1)));
  header.buffers = 0;
  header.flags &= kNetHeaderNeedsChecksum;  // 5.1.6.2.2: others mean nothing here
  const auto head = std::span(head_).first(chain.read(sizeof header, head_));
  const FrameFilter::Verdict verdict = filter_.check_sent(head, size, header, now);
  if (verdict == FrameFilter::Verdict::kPass) {
    pieces_.assign({{&header, sizeof header}, {head.data(), head.size()}});
    chain.append_readable_iovecs(sizeof header + head.size(), size - head.size(), pieces_);
    const auto sent = backend_ == nullptr ? NetBackend::Sent::kLost : backend_->send(pieces_);
    if (sent == NetBackend::Sent::kFull) {
      io_.poll(backend_->descriptor(), POLLOUT, writable_);
      return Next::kWait;
    }
    if (sent == NetBackend::Sent::kBusy) {
      io_.timeout(busy_wait_, send_timer_);
      busy_wait_ = std::min(2 * busy_wait_, kMostBusyWait);
      return Next::kWait;
    }
    busy_wait_ = kLeastBusyWait;
    sent == NetBackend::Sent::kDone ? ++report_.sent : ++report_.dropped;
    if (sent == NetBackend::Sent::kGone) {
      lose_backend();
    }
  }
  paid_ = false;
  ++counters_.requests;
  counters_.bytes_written += size;
  if (verdict == FrameFilter::Verdict::kMalformed) {
    ++counters_.errors;
    ++report_.malformed;
  } else if (verdict == FrameFilter::Verdict::kDeny) {
    ++report_.denied;
    refuse(head, now);
  }
  return Next::kGoOn;
}

void NetDevice::refuse(std::span<const std::byte> head, std::uint64_t now) {
  std::vector<std::byte> answer = filter_.refusal(head);
  const bool told = denial_tokens_.take(1, now);
  // A reset takes the socket away that says who wanted to connect.
  const bool hold =
      told && !answer.empty() && filter_.denial().protocol == kIpTcp && held_.size() < kMaxAnswers;
  if (hold) {
    held_number_ = std::max(held_number_ + 1, 1U);
    held_.push_back({held_number_, now + kHold, std::move(answer)});
    if (!held_timer_.pending()) {
      io_.timeout(kHold, held_timer_);
    }
  } else if (!answer.empty() && answers_.size() < kMaxAnswers) {
    answers_.push_back(std::move(answer));
  }
  if (told) {
    options_.denied(filter_.denial(), hold ? held_number_ : 0);
  }
}

void NetDevice::release(std::uint32_t number) {
  const auto held = std::ranges::find(held_, number, &Held::number);
  if (held != held_.end()) {
    if (answers_.size() < kMaxAnswers) {
      answers_.push_back(std::move(held->answer));
    }
    held_.erase(held);
    receive();
  }
}

void NetDevice::release_overdue() {
  const std::uint64_t now = options_.clock();
  while (!held_.empty() && held_.front().until <= now) {
    release(held_.front().number);
  }
  if (!held_.empty()) {
    io_.timeout(held_.front().until - now, held_timer_);
  }
}

// --- frames for the guest ---

void NetDevice::receive() {
  int left = kFramesAtATime;
  bool more = true;
  while (more && active() && !receive_timer_.pending()) {
    if (left-- == 0) {
      driver_->kick_again(kNetReceiveQueue);
      break;
    }
    more = receive_one();
  }
  notify(queues_, driver_);
}

// False when there is nothing more to do before something happens, for which it waits.
bool NetDevice::receive_one() {
  if (!answers_.empty()) {
    const std::vector<std::byte>& answer = answers_.front();
    if (take_buffers(sizeof(NetHeader) + answer.size())) {
      give({}, answer, answer.size());
    } else if (!is_hopeless()) {
      return false;
    }
    answers_.pop_front();
    return true;
  }
  if (filter_.closed() || !old_backends_.empty() || (!kept_ && backend_ == nullptr) ||
      !take_buffers(1)) {
    return false;
  }
  if (!receive_tokens_.take(0, options_.clock())) {
    io_.timeout(receive_tokens_.wait(), receive_timer_);
    return false;
  }
  const bool in_place =
      !kept_ && backend_->receives_in_place() && take_buffers(sizeof(NetHeader) + largest_frame());
  return (in_place ? receive_in_place() : receive_kept()) == Next::kGoOn;
}

std::size_t NetDevice::largest_frame() const {
  const bool segments = (accepted_ & (kNetFeatureGuestTso4 | kNetFeatureGuestTso6)) != 0;
  return segments ? kMaxFrame : kEthernetHeader + options_.mtu;
}

// Into the guest's buffers, but for the first bytes, which are looked at: the guest could change
// them there before that.
NetDevice::Next NetDevice::receive_in_place() {
  NetHeader header{};
  pieces_.assign({{&header, sizeof header}, {head_.data(), head_.size()}});
  std::size_t skipped = sizeof header + head_.size();
  for (const DescriptorChain& buffer : buffers_) {
    if (skipped < buffer.writable_size()) {
      buffer.append_writable_iovecs(skipped, buffer.writable_size() - skipped, pieces_);
    }
    skipped -= std::min(skipped, buffer.writable_size());
  }
  pieces_.resize(std::min<std::size_t>(pieces_.size(), IOV_MAX));
  const NetBackend::InPlace received = backend_->receive_in_place(pieces_);
  if (received.outcome == NetBackend::Outcome::kNothing && !readable_.pending()) {
    io_.poll(backend_->descriptor(), POLLIN, readable_);
  }
  if (received.outcome == NetBackend::Outcome::kGone) {
    lose_backend();
  }
  if (received.outcome != NetBackend::Outcome::kFrame) {
    return Next::kWait;
  }
  const std::size_t size = received.size - sizeof header;
  const auto head = std::span(head_).first(std::min(head_.size(), size));
  filter_.check_received(head, size, options_.clock()) ? give(header, head, size) : drop();
  return Next::kGoOn;
}

// A frame of the backend's memory, which waits there for as long as there is too little room.
NetDevice::Next NetDevice::receive_kept() {
  if (!kept_) {
    const NetBackend::Received received = backend_->receive();
    if (received.outcome == NetBackend::Outcome::kGone) {
      lose_backend();
      return Next::kWait;
    }
    if (received.outcome == NetBackend::Outcome::kNothing) {
      if (!readable_.pending()) {
        io_.poll(backend_->descriptor(), POLLIN, readable_);
      }
      return Next::kWait;
    }
    kept_ = received;
  }
  const std::size_t needed = sizeof(NetHeader) + kept_->frame.size();
  if (!take_buffers(needed)) {
    if (!is_hopeless()) {
      return Next::kWait;
    }
    drop();
  } else if (const auto head = kept_->frame.first(std::min(kept_->frame.size(), kMaxHeaders));
             filter_.check_received(head, kept_->frame.size(), options_.clock())) {
    give(kept_->header, kept_->frame, kept_->frame.size());
  } else {
    drop();
  }
  kept_.reset();
  return Next::kGoOn;
}

// Whether the receive buffers at hand, one of them without mergeable buffers, have `size` bytes.
bool NetDevice::take_buffers(std::size_t size) {
  const bool merge = (accepted_ & kNetFeatureMergeableBuffers) != 0;
  const auto enough = [&] {
    return merge ? room_ >= size : !buffers_.empty() && buffers_.front().writable_size() >= size;
  };
  std::uint16_t useless = 0;
  while (!enough() && (merge || buffers_.empty())) {
    auto buffer = queues_[kNetReceiveQueue].pop();
    if (!buffer) {
      broken();
      return false;
    }
    if (!*buffer) {
      return false;
    }
    // 5.1.6.3.1: one has at least the header's bytes. Others go back at once, unused.
    if ((*buffer)->writable_size() < sizeof(NetHeader)) {
      ++counters_.errors;
      queues_[kNetReceiveQueue].push(std::move(**buffer), 0);
      if (++useless == queues_[kNetReceiveQueue].size()) {  // a driver that gives ever more of them
        driver_->kick_again(kNetReceiveQueue);
        return false;
      }
      continue;
    }
    room_ += (*buffer)->writable_size();
    buffers_.push_back(std::move(**buffer));
  }
  return enough();
}

// Whether the buffers at hand will never do for what waits: without mergeable buffers one has to,
// and a ring that is full gives no more.
bool NetDevice::is_hopeless() const {
  const bool merge = (accepted_ & kNetFeatureMergeableBuffers) != 0;
  return !queues_.empty() &&
         (buffers_.size() == queues_[kNetReceiveQueue].size() || (!merge && !buffers_.empty()));
}

// Of a frame of `size` bytes the first ones; the others are there already.
void NetDevice::give(const NetHeader& header, std::span<const std::byte> head, std::size_t size) {
  receive_tokens_.take(size, options_.clock());
  write(sizeof header, head);
  NetHeader first = header;
  first.buffers = 0;  // not what the backend wrote there
  // 5.1.6.4.1: without the feature the driver is told nothing of checksums.
  if ((accepted_ & kNetFeatureGuestChecksum) == 0) {
    first.flags = 0;
  }
  std::size_t left = sizeof header + size;
  for (const DescriptorChain& buffer : buffers_) {
    ++first.buffers;
    left -= std::min(left, buffer.writable_size());
    if (left == 0) {
      break;
    }
  }
  write(0, std::as_bytes(std::span(&first, 1)));
  use_buffers(sizeof header + size);
  ++counters_.requests;
  ++report_.received;
  counters_.bytes_read += size;
}

void NetDevice::write(std::size_t offset, std::span<const std::byte> bytes) {
  for (const DescriptorChain& buffer : buffers_) {
    if (bytes.empty()) {
      break;
    }
    if (offset < buffer.writable_size()) {
      bytes = bytes.subspan(buffer.write(offset, bytes));
      offset = 0;
    } else {
      offset -= buffer.writable_size();
    }
  }
}

// 5.1.6.4.1: a driver that looks sees all buffers of a frame, or none.
void NetDevice::use_buffers(std::size_t size) {
  used_.clear();
  while (size > 0 && !buffers_.empty()) {
    const std::size_t used = std::min(size, buffers_.front().writable_size());
    room_ -= buffers_.front().writable_size();
    size -= used;
    used_.push_back({std::move(buffers_.front()), static_cast<std::uint32_t>(used)});
    buffers_.pop_front();
  }
  queues_[kNetReceiveQueue].push_together(used_);
  used_.clear();
}

// --- the backend, and the end ---

// A backend that was dropped is gone once nothing polls its descriptor; only then the one in its
// place is used. Cancelled without one, the loop ends.
void NetDevice::on_polled(std::int32_t result, std::uint16_t index) {
  if (old_backends_.empty()) {
    if (result != -ECANCELED) {
      on_queue(index);
    }
    return;
  }
  release_old_backends();
  if (old_backends_.empty()) {
    receive();
    send();
  }
}

void NetDevice::on_time(std::int32_t result, std::uint16_t index) {
  if (result == -ETIME) {
    on_queue(index);
  }
}

// It lives for as long as its descriptor is polled.
void NetDevice::drop_backend() {
  kept_.reset();
  if (backend_ != nullptr) {
    old_backends_.push_back(std::move(backend_));
  }
  io_.cancel(readable_);
  io_.cancel(writable_);
  release_old_backends();
}

void NetDevice::release_old_backends() {
  if (!readable_.pending() && !writable_.pending()) {
    old_backends_.clear();
  }
}

void NetDevice::lose_backend() {
  drop_backend();
  options_.lost();
}

void NetDevice::replace(std::unique_ptr<NetBackend> backend) {
  drop_backend();
  backend_ = std::move(backend);
  if (driver_ != nullptr) {
    backend_->set_features(accepted_);
  }
  receive();
}

void NetDevice::broken() {
  driver_->needs_reset();
}

// Nothing is under way on guest memory between calls. What the backend has waits there.
void NetDevice::pause(std::function<void()> done) {
  paused_ = true;
  done();
}

void NetDevice::resume() {
  paused_ = false;
}

void NetDevice::reset(std::function<void()> done) {
  for (Queue& queue : queues_) {
    queue.close();
  }
  queues_.clear();
  driver_ = nullptr;
  unsent_.reset();
  paid_ = false;
  buffers_.clear();
  room_ = 0;
  answers_.clear();
  held_.clear();
  done();
}

}  // namespace msb::virtio
