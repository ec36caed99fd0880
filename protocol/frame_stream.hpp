// SPDX-License-Identifier: Apache-2.0
// A connection to the guest that carries frames in both directions, on an event loop. Ground of the
// clients beside it (Process, Requests, Files), which say what the frames mean.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "protocol/frames.hpp"

namespace msb::protocol {

// Used on the loop's thread. May be destroyed at any time, also from inside its own callbacks: the
// connection is closed, nothing is called any more, and what the loop still works on is kept until
// it is done. SIGPIPE must be ignored in the process.
class FrameStream {
 public:
  struct Owner {
    // A frame came. Return false to stop reading until resume(); the frame itself counts as taken.
    std::function<bool(const Frame&)> frame;
    // Nothing more will come: empty when the guest closed the connection between frames, else what
    // went wrong. Code ECONNRESET: the other side went away; EPROTO: it is no sandbox.
    std::function<void(std::optional<Error>)> closed;
    // Optional. Everything that was sent has been handed to the connection.
    std::function<void()> sent;
  };

  // The first line of a connection made through an Opener, "OK <number>\n", comes before frames.
  enum class Greeting : bool { kNone, kExpected };

  // `socket`: a stream socket in blocking mode.
  FrameStream(AsyncIo& io, Fd socket, Connection connection, Greeting greeting, Owner owner);
  FrameStream(FrameStream&&) noexcept = default;
  FrameStream& operator=(FrameStream&& other) noexcept;
  ~FrameStream();

  // Starts reading. To be called once, when the owner can take frames.
  void start();
  void resume();
  // Sends one or more encoded frames, in the order of the calls.
  void send(std::vector<std::byte> frames);
  // Bytes given to send() that the connection has not taken yet.
  [[nodiscard]] std::size_t unsent() const;
  // Ends the connection; nothing is called any more.
  void close();

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace msb::protocol
