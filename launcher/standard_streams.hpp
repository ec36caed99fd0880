// SPDX-License-Identifier: Apache-2.0
// The launcher's own standard streams on the event loop.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/async_io.hpp"

namespace msb::launcher {

// Reads a descriptor piece by piece, as fast as its owner asks. The loop must be drained before it
// is destroyed.
class InputReader {
 public:
  // `data` gets each piece; an empty one is the end (also when the descriptor cannot be read at
  // all).
  InputReader(AsyncIo& io, int fd, std::function<void(std::span<const std::byte>)> data);
  // Reads one piece. Not while the last one is still awaited.
  void read();

 private:
  void on_read(std::int32_t result);

  AsyncIo& io_;
  const int fd_;
  std::function<void(std::span<const std::byte>)> data_;
  std::array<std::byte, 32 * 1024> buffer_;
  iovec iovec_{buffer_.data(), buffer_.size()};
  Operation read_;
  Operation readable_;  // for a descriptor that somebody made non-blocking
};

// Writes pieces to a descriptor, one at a time and whole. The loop must be drained before it is
// destroyed.
class OutputWriter {
 public:
  // `written` is called when a piece is out, with 0, or lost, with a positive errno.
  OutputWriter(AsyncIo& io, int fd, std::function<void(int error)> written);
  // Not while the last one is still being written.
  void write(std::span<const std::byte> bytes);
  // Gives up what is still being written. `written` is not called for it.
  void abandon();

 private:
  void write_more();
  void on_write(std::int32_t result);

  AsyncIo& io_;
  const int fd_;
  std::function<void(int error)> written_callback_;
  std::vector<std::byte> bytes_;
  std::size_t written_ = 0;
  bool abandoned_ = false;
  iovec iovec_{};
  Operation write_;
  Operation writable_;
};

}  // namespace msb::launcher
