// SPDX-License-Identifier: Apache-2.0
#include "protocol/tunnel.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "protocol/frames.hpp"
#include "protocol/line_reader.hpp"
#include "protocol/msb_exec.h"
#include "protocol/opener.hpp"

namespace msb::protocol {

// Reads its answer in exact pieces, because what follows is not its own: the line, a frame's
// header, its payload. Keeps itself while the loop works on its buffers.
class Tunnel::State : public std::enable_shared_from_this<State> {
 public:
  State(AsyncIo& io, Fd socket, FrameBytes connect, Done done)
      : io_(io),
        socket_(std::move(socket)),
        request_(std::move(connect)),
        done_(std::move(done)),
        line_(io, socket_.get(), kMaxGreeting,
              [this](const Result<std::string>& line) { complete([&] { on_line(line); }); }),
        read_([this](std::int32_t result) { complete([&] { on_read(result); }); }),
        write_([this](std::int32_t result) { complete([&] { on_write(result); }); }) {}

  void start() {
    self_ = shared_from_this();
    write_more();
    line_.start();
  }
  void close();

 private:
  template <typename Function>
  void complete(Function&& function);
  void on_line(const Result<std::string>& line);
  void read_more();
  void on_read(std::int32_t result);
  void on_frame(const Frame& frame);
  void write_more();
  void on_write(std::int32_t result);
  void finish(Answer<Fd> answer);
  void settle();

  AsyncIo& io_;
  Fd socket_;
  FrameBytes request_;
  std::size_t written_ = 0;
  iovec request_iovec_{};
  Done done_;
  LineReader line_;
  FrameDecoder decoder_{Connection::kTunnel};
  FrameBytes answer_;            // header and payload, as far as they are expected
  std::size_t answer_size_ = 0;  // of answer_ that has come
  iovec answer_iovec_{};
  bool ended_ = false;
  Operation read_;
  Operation write_;
  std::shared_ptr<State> self_;
};

template <typename Function>
void Tunnel::State::complete(Function&& function) {
  const auto kept = shared_from_this();
  function();
  settle();
}

void Tunnel::State::settle() {
  if (ended_ && !line_.pending() && !read_.pending() && !write_.pending()) {
    socket_.reset();
    self_.reset();
  }
}

void Tunnel::State::write_more() {
  request_iovec_ = {request_.data() + written_, request_.size() - written_};
  io_.write(socket_.get(), {&request_iovec_, 1}, AsyncIo::kNoOffset, write_);
}

void Tunnel::State::on_write(std::int32_t result) {
  // When the other side is gone, reading finds out why.
  if (!ended_ && result > 0) {
    written_ += static_cast<std::size_t>(result);
    if (written_ < request_.size()) {
      write_more();
    }
  }
}

void Tunnel::State::on_line(const Result<std::string>& line) {
  if (ended_ || (!line && line.error().code == ECANCELED)) {
    return;
  }
  if (!line && line.error().code != EMSGSIZE) {
    finish(std::unexpected(Failure{0, ended_before_greeting()}));
  } else if (!line || !is_greeting(*line)) {
    finish(std::unexpected(Failure{0, not_a_sandbox()}));
  } else {
    answer_.resize(sizeof(msb_frame_header));
    read_more();
  }
}

void Tunnel::State::read_more() {
  answer_iovec_ = {answer_.data() + answer_size_, answer_.size() - answer_size_};
  io_.read(socket_.get(), {&answer_iovec_, 1}, AsyncIo::kNoOffset, read_);
}

void Tunnel::State::on_read(std::int32_t result) {
  if (ended_ || result == -ECANCELED) {
    return;
  }
  if (result <= 0) {
    finish(std::unexpected(
        Failure{0, {"the sandbox closed the connection without an answer", ECONNRESET}}));
    return;
  }
  decoder_.feed(std::span(answer_).subspan(answer_size_, static_cast<std::size_t>(result)));
  answer_size_ += static_cast<std::size_t>(result);
  // The decoder has checked the length by the time that it asks for more than the header.
  const auto frame = decoder_.next();
  if (!frame) {
    finish(std::unexpected(Failure{0, frame.error()}));
  } else if (*frame) {
    on_frame(**frame);
  } else {
    if (answer_size_ == sizeof(msb_frame_header)) {
      msb_frame_header header{};
      std::memcpy(&header, answer_.data(), sizeof header);
      answer_.resize(sizeof header + header.length);
    }
    read_more();
  }
}

void Tunnel::State::on_frame(const Frame& frame) {
  if (frame.type == MSB_DONE && written_ == request_.size()) {
    finish(std::move(socket_));
    return;
  }
  const auto failure = frame.type == MSB_REFUSED
                           ? decode_failure(frame)
                           : Result<Failure>(std::unexpected(out_of_place(frame)));
  finish(std::unexpected(failure ? *failure : Failure{0, failure.error()}));
}

void Tunnel::State::finish(Answer<Fd> answer) {
  ended_ = true;
  done_(std::move(answer));
}

void Tunnel::State::close() {
  if (!std::exchange(ended_, true)) {
    ::shutdown(socket_.get(), SHUT_RDWR);
    line_.cancel();
    io_.cancel(read_);
    io_.cancel(write_);
    settle();
  }
}

Tunnel::Tunnel(AsyncIo& io, Fd socket, FrameBytes connect, Done done)
    : state_(std::make_shared<State>(io, std::move(socket), std::move(connect), std::move(done))) {
  state_->start();
}

Tunnel::Tunnel(Tunnel&&) noexcept = default;

Tunnel& Tunnel::operator=(Tunnel&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Tunnel::~Tunnel() {
  if (state_) {
    state_->close();
  }
}

}  // namespace msb::protocol
