// SPDX-License-Identifier: Apache-2.0
#include "protocol/frame_stream.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace msb::protocol {

FrameStream::FrameStream(AsyncIo& io, Fd socket, bool greeting, Owner owner)
    : io_(io),
      socket_(std::move(socket)),
      owner_(std::move(owner)),
      greeting_(greeting),
      read_([this](std::int32_t result) { on_read(result); }),
      write_([this](std::int32_t result) { on_write(result); }) {}

void FrameStream::read_more() {
  if (!ended_ && !paused_ && !read_.pending()) {
    io_.read(socket_.get(), {&input_iovec_, 1}, AsyncIo::kNoOffset, read_);
  }
}

void FrameStream::on_read(std::int32_t result) {
  if (ended_) {
    return;
  }
  if (result < 0) {
    end(Error{"the connection to the guest broke", -result});
    return;
  }
  if (result == 0) {
    end(std::nullopt);
    return;
  }
  std::span<const std::byte> bytes = std::span(input_).first(static_cast<std::size_t>(result));
  if (greeting_ && !take_greeting(bytes)) {
    read_more();
    return;
  }
  decoder_.feed(bytes);
  take_frames();
}

// Skips the greeting's line; whether it is complete.
bool FrameStream::take_greeting(std::span<const std::byte>& bytes) {
  const auto newline = std::ranges::find(bytes, std::byte{'\n'});
  const bool complete = newline != bytes.end();
  bytes = complete ? bytes.subspan(static_cast<std::size_t>(newline - bytes.begin()) + 1)
                   : bytes.last(0);
  greeting_ = !complete;
  return complete;
}

void FrameStream::take_frames() {
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

void FrameStream::resume() {
  if (std::exchange(paused_, false)) {
    take_frames();
  }
}

void FrameStream::send(std::vector<std::byte> frame) {
  if (!ended_) {
    unsent_ += frame.size();
    output_.push_back(std::move(frame));
    write_more();
  }
}

void FrameStream::write_more() {
  if (write_.pending() || output_.empty()) {
    return;
  }
  output_iovec_ = {output_.front().data() + written_, output_.front().size() - written_};
  io_.write(socket_.get(), {&output_iovec_, 1}, AsyncIo::kNoOffset, write_);
}

void FrameStream::on_write(std::int32_t result) {
  if (ended_) {
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

void FrameStream::end(std::optional<Error> error) {
  close();
  owner_.closed(std::move(error));
}

void FrameStream::close() {
  if (!std::exchange(ended_, true)) {
    ::shutdown(socket_.get(), SHUT_RDWR);
    io_.cancel(read_);
    io_.cancel(write_);
    if (!read_.pending() && !write_.pending()) {
      socket_.reset();
    }
  }
}

}  // namespace msb::protocol
