// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/datagram_stream.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

namespace msb::launcher {

namespace {
constexpr std::size_t kLength = 2;  // bytes in front of each
constexpr std::size_t kLargest = 65535;
// In one turn of the loop, which has other work too.
constexpr int kTakenAtOnce = 64;
}  // namespace

bool WaitingDatagrams::add(std::span<const std::byte> datagram, std::size_t elsewhere) {
  const std::size_t size = datagram.size();
  if (size > kLargest || bytes_.size() + elsewhere + kLength + size > kMost) {
    return false;
  }
  bytes_.push_back(static_cast<std::byte>(size & 0xff));
  bytes_.push_back(static_cast<std::byte>(size >> 8));
  bytes_.insert(bytes_.end(), datagram.begin(), datagram.end());
  return true;
}

std::vector<std::byte> WaitingDatagrams::take() {
  return std::exchange(bytes_, {});
}

// Keeps itself while the loop works on its buffers.
class DatagramStream::State : public std::enable_shared_from_this<State> {
 public:
  State(AsyncIo& io, Fd socket, Events events, WaitingDatagrams waiting)
      : io_(io),
        socket_(std::move(socket)),
        events_(std::move(events)),
        waiting_(std::move(waiting)),
        read_([this](std::int32_t result) { complete([&] { on_read(result); }); }),
        write_([this](std::int32_t result) { complete([&] { on_write(result); }); }),
        more_([this](std::int32_t) { complete([&] { take_datagrams(); }); }) {}

  void start() {
    self_ = shared_from_this();
    read_more();
    write_more();
  }

  void send(std::span<const std::byte> datagram) {
    if (!ended_ && waiting_.add(datagram, writing_.size() - written_) && !write_.pending()) {
      write_more();
    }
  }

  void close() {
    if (!std::exchange(ended_, true)) {
      io_.cancel(read_);
      io_.cancel(write_);
    }
  }

 private:
  template <typename Function>
  void complete(Function&& function) {
    const auto kept = shared_from_this();
    if (!ended_) {
      function();
    }
    if (ended_ && !read_.pending() && !write_.pending() && !more_.pending()) {
      socket_.reset();
      self_.reset();
    }
  }

  void read_more() {
    read_place_ = {buffer_.get() + filled_, kBuffer - filled_};
    io_.read(socket_.get(), {&read_place_, 1}, AsyncIo::kNoOffset, read_);
  }

  void on_read(std::int32_t result) {
    if (result <= 0 && result != -EINTR) {
      fail();
      return;
    }
    filled_ += result > 0 ? static_cast<std::size_t>(result) : 0;
    take_datagrams();
  }

  void take_datagrams() {
    std::span<const std::byte> left(buffer_.get(), filled_);
    int taken = 0;
    while (!ended_ && taken < kTakenAtOnce && left.size() >= kLength) {
      const std::size_t size =
          std::to_integer<std::size_t>(left[0]) | std::to_integer<std::size_t>(left[1]) << 8;
      if (left.size() < kLength + size) {
        break;
      }
      const auto datagram = left.subspan(kLength, size);
      left = left.subspan(kLength + size);
      ++taken;
      events_.received(datagram);
    }
    if (ended_) {
      return;
    }
    std::memmove(buffer_.get(), left.data(), left.size());
    filled_ = left.size();
    // Those that are left have their turn before more is read, which they may leave no room for.
    taken == kTakenAtOnce ? io_.defer(more_) : read_more();
  }

  void write_more() {
    if (written_ == writing_.size()) {
      writing_ = waiting_.take();
      written_ = 0;
    }
    if (written_ < writing_.size()) {
      write_place_ = {writing_.data() + written_, writing_.size() - written_};
      io_.write(socket_.get(), {&write_place_, 1}, AsyncIo::kNoOffset, write_);
    }
  }

  void on_write(std::int32_t result) {
    if (result <= 0 && result != -EINTR) {
      fail();
      return;
    }
    written_ += result > 0 ? static_cast<std::size_t>(result) : 0;
    write_more();
  }

  void fail() {
    close();
    events_.ended();
  }

  static constexpr std::size_t kBuffer = kLength + kLargest;

  AsyncIo& io_;
  Fd socket_;
  const Events events_;
  bool ended_ = false;
  // Untouched memory costs nothing until something comes.
  std::unique_ptr<std::byte[]> buffer_ = std::make_unique_for_overwrite<std::byte[]>(kBuffer);
  std::size_t filled_ = 0;
  iovec read_place_{};
  WaitingDatagrams waiting_;
  std::vector<std::byte> writing_;
  std::size_t written_ = 0;
  iovec write_place_{};
  Operation read_;
  Operation write_;
  Operation more_;
  std::shared_ptr<State> self_;
};

DatagramStream::DatagramStream(AsyncIo& io, Fd socket, Events events, WaitingDatagrams waiting)
    : state_(
          std::make_shared<State>(io, std::move(socket), std::move(events), std::move(waiting))) {
  state_->start();
}

DatagramStream::DatagramStream(DatagramStream&&) noexcept = default;

DatagramStream& DatagramStream::operator=(DatagramStream&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

DatagramStream::~DatagramStream() {
  if (state_) {
    state_->close();
  }
}

void DatagramStream::send(std::span<const std::byte> datagram) {
  state_->send(datagram);
}

}  // namespace msb::launcher
