// SPDX-License-Identifier: Apache-2.0
#include "protocol/frame_stream.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <span>
#include <string>
#include <utility>

#include "protocol/opener.hpp"

namespace msb::protocol {

// Keeps itself while the loop works on its buffers.
class FrameStream::State : public std::enable_shared_from_this<State> {
 public:
  State(AsyncIo& io, Fd socket, Connection connection, Greeting greeting, Owner owner)
      : io_(io),
        socket_(std::move(socket)),
        owner_(std::move(owner)),
        greeting_(greeting),
        decoder_(connection),
        read_([this](std::int32_t result) { complete([&] { on_read(result); }); }),
        write_([this](std::int32_t result) { complete([&] { on_write(result); }); }) {}

  void read_more();
  void resume();
  void send(std::vector<std::byte> frames);
  [[nodiscard]] std::size_t unsent() const { return unsent_; }
  void close();

 private:
  template <typename Function>
  void complete(Function&& function);
  void on_read(std::int32_t result);
  bool take_greeting(std::span<const std::byte>& bytes);
  void take_frames();
  void write_more();
  void on_write(std::int32_t result);
  void on_end(int code);
  void end(std::optional<Error> error);

  AsyncIo& io_;
  Fd socket_;
  Owner owner_;
  Greeting greeting_;
  std::string line_;  // of the greeting, as far as it has come
  bool paused_ = false;
  bool ended_ = false;
  bool taking_ = false;
  FrameDecoder decoder_;
  std::array<std::byte, kMaxGreeting + 1> opening_;  // the greeting, and what may follow it
  std::span<std::byte> input_;                       // where is being read to
  iovec input_iovec_{};
  std::deque<std::vector<std::byte>> output_;
  std::size_t written_ = 0;  // of the first in output_
  std::size_t unsent_ = 0;
  iovec output_iovec_{};
  Operation read_;
  Operation write_;
  std::shared_ptr<State> self_;  // while an operation is pending
};

template <typename Function>
void FrameStream::State::complete(Function&& function) {
  const auto kept = shared_from_this();
  function();
  if (!read_.pending() && !write_.pending()) {
    if (ended_) {
      socket_.reset();
    }
    self_.reset();
  }
}

void FrameStream::State::read_more() {
  if (!ended_ && !paused_ && !read_.pending()) {
    self_ = shared_from_this();
    input_ = greeting_ == Greeting::kExpected ? std::span<std::byte>(opening_) : decoder_.space();
    input_iovec_ = {input_.data(), input_.size()};
    io_.read(socket_.get(), {&input_iovec_, 1}, AsyncIo::kNoOffset, read_);
  }
}

void FrameStream::State::on_read(std::int32_t result) {
  if (ended_ || result == -ECANCELED) {
    return;
  }
  if (result <= 0) {
    on_end(-result);
    return;
  }
  if (greeting_ == Greeting::kNone) {
    decoder_.filled(static_cast<std::size_t>(result));
  } else {
    std::span<const std::byte> bytes = input_.first(static_cast<std::size_t>(result));
    if (!take_greeting(bytes)) {
      return;
    }
    decoder_.feed(bytes);
  }
  take_frames();
}

// Takes the greeting's line off the front; whether frames follow.
bool FrameStream::State::take_greeting(std::span<const std::byte>& bytes) {
  const auto newline = std::ranges::find(bytes, std::byte{'\n'});
  const bool complete = newline != bytes.end();
  const auto line = bytes.first(static_cast<std::size_t>(newline - bytes.begin()));
  line_.append(reinterpret_cast<const char*>(line.data()),
               std::min(line.size(), kMaxGreeting + 1 - std::min(line_.size(), kMaxGreeting + 1)));
  if (complete ? !is_greeting(line_) : line_.size() > kMaxGreeting) {
    end(not_a_sandbox());
    return false;
  }
  if (!complete) {
    read_more();
    return false;
  }
  bytes = bytes.subspan(line.size() + 1);
  greeting_ = Greeting::kNone;
  return true;
}

void FrameStream::State::take_frames() {
  if (std::exchange(taking_, true)) {
    return;  // resume() from inside a callback: the loop below goes on
  }
  while (!ended_ && !paused_) {
    const auto frame = decoder_.next();
    if (!frame) {
      end(frame.error());
      break;
    }
    if (!*frame) {
      break;
    }
    paused_ = true;  // so that resume() from inside the callback counts
    if (owner_.frame(**frame)) {
      paused_ = false;
    }
  }
  taking_ = false;
  read_more();
}

void FrameStream::State::resume() {
  if (std::exchange(paused_, false)) {
    const auto kept = shared_from_this();
    take_frames();
  }
}

void FrameStream::State::send(std::vector<std::byte> frames) {
  if (!ended_ && !frames.empty()) {
    unsent_ += frames.size();
    output_.push_back(std::move(frames));
    write_more();
  }
}

void FrameStream::State::write_more() {
  if (write_.pending() || output_.empty()) {
    return;
  }
  self_ = shared_from_this();
  output_iovec_ = {output_.front().data() + written_, output_.front().size() - written_};
  io_.write(socket_.get(), {&output_iovec_, 1}, AsyncIo::kNoOffset, write_);
}

void FrameStream::State::on_write(std::int32_t result) {
  if (ended_ || result == -ECANCELED) {
    return;
  }
  if (result < 0) {
    // The other side may have closed after its last word: reading finds that word, and then the
    // end.
    output_.clear();
    written_ = 0;
    unsent_ = 0;
    return;
  }
  written_ += static_cast<std::size_t>(result);
  unsent_ -= static_cast<std::size_t>(result);
  if (written_ == output_.front().size()) {
    output_.pop_front();
    written_ = 0;
  }
  write_more();
  if (unsent_ == 0 && owner_.sent) {
    owner_.sent();
  }
}

// A Unix socket is reset, instead of ended, when what was sent had not been read on the other side.
void FrameStream::State::on_end(int code) {
  if (greeting_ == Greeting::kExpected) {
    end(ended_before_greeting());
  } else if (code != 0 && code != ECONNRESET) {
    end(Error{"the connection to the guest broke", code});
  } else if (!decoder_.at_boundary()) {
    end(Error{"the connection to the guest ended in the middle of a frame", ECONNRESET});
  } else {
    end(std::nullopt);
  }
}

void FrameStream::State::end(std::optional<Error> error) {
  close();
  owner_.closed(std::move(error));
}

void FrameStream::State::close() {
  if (!std::exchange(ended_, true)) {
    ::shutdown(socket_.get(), SHUT_RDWR);
    io_.cancel(read_);
    io_.cancel(write_);
    if (!read_.pending() && !write_.pending()) {
      socket_.reset();
    }
  }
}

FrameStream::FrameStream(AsyncIo& io, Fd socket, Connection connection, Greeting greeting,
                         Owner owner)
    : state_(
          std::make_shared<State>(io, std::move(socket), connection, greeting, std::move(owner))) {}

FrameStream& FrameStream::operator=(FrameStream&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

FrameStream::~FrameStream() {
  if (state_) {
    state_->close();
  }
}

void FrameStream::start() {
  state_->read_more();
}

void FrameStream::resume() {
  state_->resume();
}

void FrameStream::send(std::vector<std::byte> frames) {
  state_->send(std::move(frames));
}

std::size_t FrameStream::unsent() const {
  return state_->unsent();
}

void FrameStream::close() {
  state_->close();
}

}  // namespace msb::protocol
