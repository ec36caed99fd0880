// SPDX-License-Identifier: Apache-2.0
#include "launcher/standard_streams.hpp"

#include <poll.h>

#include <cerrno>
#include <utility>

namespace msb::launcher {

InputReader::InputReader(AsyncIo& io, int fd, std::function<void(std::span<const std::byte>)> data)
    : io_(io),
      fd_(fd),
      data_(std::move(data)),
      read_([this](std::int32_t result) { on_read(result); }),
      readable_([this](std::int32_t result) {
        if (result != -ECANCELED) {
          read();
        }
      }) {}

void InputReader::read() {
  io_.read(fd_, {&iovec_, 1}, AsyncIo::kNoOffset, read_);
}

void InputReader::on_read(std::int32_t result) {
  if (result == -ECANCELED) {
    return;
  }
  if (result == -EAGAIN) {
    io_.poll(fd_, POLLIN, readable_);
    return;
  }
  data_(std::span(buffer_).first(result > 0 ? static_cast<std::size_t>(result) : 0));
}

OutputWriter::OutputWriter(AsyncIo& io, int fd, std::function<void(int error)> written)
    : io_(io),
      fd_(fd),
      written_callback_(std::move(written)),
      write_([this](std::int32_t result) { on_write(result); }),
      writable_([this](std::int32_t result) {
        if (!abandoned_ && result != -ECANCELED) {
          write_more();
        }
      }) {}

void OutputWriter::write(std::span<const std::byte> bytes) {
  bytes_.assign(bytes.begin(), bytes.end());
  written_ = 0;
  write_more();
}

void OutputWriter::abandon() {
  abandoned_ = true;
  io_.cancel(write_);
  io_.cancel(writable_);
}

void OutputWriter::write_more() {
  iovec_ = {bytes_.data() + written_, bytes_.size() - written_};
  io_.write(fd_, {&iovec_, 1}, AsyncIo::kNoOffset, write_);
}

void OutputWriter::on_write(std::int32_t result) {
  if (abandoned_ || result == -ECANCELED) {
    return;
  }
  if (result == -EAGAIN) {
    io_.poll(fd_, POLLOUT, writable_);
    return;
  }
  if (result < 0) {
    written_callback_(-result);
    return;
  }
  written_ += static_cast<std::size_t>(result);
  if (written_ < bytes_.size()) {
    write_more();
  } else {
    written_callback_(0);
  }
}

}  // namespace msb::launcher
