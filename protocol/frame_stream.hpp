// SPDX-License-Identifier: Apache-2.0
// A connection to the guest that carries frames in both directions, on an event loop.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "protocol/frames.hpp"

namespace msb::protocol {

// Used on the loop's thread. The loop must be drained before it is destroyed.
class FrameStream {
 public:
  struct Owner {
    // A frame came. Return false to stop reading until resume(); the frame itself counts as taken.
    std::function<bool(const Frame&)> frame;
    // Nothing more will come: empty when the guest closed the connection between frames, else what
    // went wrong.
    std::function<void(std::optional<Error>)> closed;
    // Everything that was sent has been handed to the connection.
    std::function<void()> sent;
  };

  // `socket`: a stream socket in blocking mode. With `greeting`, the first line that comes is not a
  // frame but the answer "OK <port>" of a connect.
  FrameStream(AsyncIo& io, Fd socket, bool greeting, Owner owner);

  void start() { read_more(); }
  void resume();
  void send(std::vector<std::byte> frame);
  // Bytes given to send() that the connection has not taken yet.
  [[nodiscard]] std::size_t unsent() const { return unsent_; }
  // Ends the connection; nothing is called any more.
  void close();

 private:
  void read_more();
  void on_read(std::int32_t result);
  bool take_greeting(std::span<const std::byte>& bytes);
  void take_frames();
  void write_more();
  void on_write(std::int32_t result);
  void end(std::optional<Error> error);

  AsyncIo& io_;
  Fd socket_;
  Owner owner_;
  bool greeting_;
  bool paused_ = false;
  bool ended_ = false;
  bool taking_ = false;
  FrameDecoder decoder_;
  std::array<std::byte, 64 * 1024> input_;
  iovec input_iovec_{input_.data(), input_.size()};
  std::deque<std::vector<std::byte>> output_;
  std::size_t written_ = 0;  // of the first in output_
  std::size_t unsent_ = 0;
  iovec output_iovec_{};
  Operation read_;
  Operation write_;
};

}  // namespace msb::protocol
