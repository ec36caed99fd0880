// SPDX-License-Identifier: Apache-2.0
// Connections that are carried on into a guest.
#pragma once

#include <chrono>
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

struct TunnelTimes {
  std::chrono::milliseconds retry{10};  // until an opener that failed is called again, then longer
  std::chrono::milliseconds give_up{5'000};  // on one that fails
  std::chrono::milliseconds look{5'000};     // between looks at clients that ended their half
};

// Opens a tunnel for each, and then relays. When the guest refuses, a TCP client is reset, and
// another one's socket is closed; a guest that cannot be asked now is asked again, for a while.
// Used on the loop's thread, which must be drained after close().
class TunnelRelays {
 public:
  // At most `most` at a time. `left` is optional; it runs after one has ended, but not after
  // close().
  TunnelRelays(AsyncIo& io, std::size_t most, std::function<void()> left = {},
               TunnelTimes times = {});
  TunnelRelays(const TunnelRelays&) = delete;
  TunnelRelays& operator=(const TunnelRelays&) = delete;
  ~TunnelRelays();

  [[nodiscard]] std::size_t count() const { return openings_.size() + relays_.count(); }
  [[nodiscard]] bool has_room() const { return count() < most_; }
  // Takes a stream socket in blocking mode; `open` gives a connection to the agent, and `connect`
  // is what to ask it for. Without room the client is reset.
  void add(Fd client, protocol::Opener open, protocol::FrameBytes connect);
  void close();

 private:
  class Opening;
  void on_left() const;

  AsyncIo& io_;
  const std::size_t most_;
  const std::function<void()> left_;
  const TunnelTimes times_;
  bool closed_ = false;
  std::list<std::shared_ptr<Opening>> openings_;
  Relays relays_;
};

}  // namespace msb::launcher
