// SPDX-License-Identifier: Apache-2.0
// A connection to something that listens inside a guest.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/host_frames.hpp"

namespace msb::protocol {

// Asks the agent to connect, and hands the connection over when it has. Used on the loop's thread.
// May be destroyed at any time, also from inside `done`; before that it takes the connection with
// it, and `done` does not run.
class Tunnel {
 public:
  // Gets the stream socket, in blocking mode, with nothing but the other end's bytes on it; not one
  // was read.
  using Done = std::function<void(Answer<Fd>)>;

  // `socket`: from an Opener for the agent's port. `connect`: encode_connect_tcp(),
  // encode_connect_udp() or encode_connect_unix(). `done` runs once, later.
  Tunnel(AsyncIo& io, Fd socket, FrameBytes connect, Done done);
  Tunnel(Tunnel&&) noexcept;
  Tunnel& operator=(Tunnel&& other) noexcept;
  ~Tunnel();

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace msb::protocol
