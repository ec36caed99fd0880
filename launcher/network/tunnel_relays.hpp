// SPDX-License-Identifier: Apache-2.0
// Connections that are carried on into a guest.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <memory>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "launcher/network/relay.hpp"
#include "protocol/host_frames.hpp"
#include "protocol/opener.hpp"

namespace msb::launcher {

// Opens a tunnel for each, and then relays. When the guest refuses, a TCP client is reset, and
// another one's socket is closed. Used on the loop's thread, which must be drained after close().
class TunnelRelays {
 public:
  // At most `most` at a time. `left` is optional; it runs after one has ended, but not after
  // close().
  TunnelRelays(AsyncIo& io, std::size_t most, std::function<void()> left = {});
  TunnelRelays(const TunnelRelays&) = delete;
  TunnelRelays& operator=(const TunnelRelays&) = delete;
  ~TunnelRelays();

  [[nodiscard]] bool has_room() const { return openings_.size() + relays_.count() < most_; }
  // Takes a stream socket in blocking mode; `open` gives a connection to the agent, and `connect`
  // is what to ask it for. Without room the client is reset.
  void add(Fd client, const protocol::Opener& open, protocol::FrameBytes connect);
  void close();

 private:
  class Opening;
  void on_left() const;

  AsyncIo& io_;
  const std::size_t most_;
  const std::function<void()> left_;
  bool closed_ = false;
  std::list<std::shared_ptr<Opening>> openings_;
  Relays relays_;
};

}  // namespace msb::launcher
