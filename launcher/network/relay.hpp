// SPDX-License-Identifier: Apache-2.0
// Pairs of stream sockets, each of which gets what comes from the other.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <memory>

#include "base/async_io.hpp"
#include "base/fd.hpp"

namespace msb::launcher {

// Has the next close(2) of a TCP socket send a reset instead of an orderly end. Nothing happens to
// other sockets.
void reset_at_close(int socket);

// An end of stream is passed on by shutdown(2), and a pair is over when both have come, or when one
// side is gone altogether. A reset of one side is one of the other, if that is TCP. Each direction
// has a buffer of kRelayBuffer bytes and reads only when it is empty, so that who reads slowly
// slows down who writes. Used on the loop's thread, which must be drained after close().
class Relays {
 public:
  static constexpr std::size_t kRelayBuffer = 65536;

  // `ended` is optional; it runs after one has ended, but not after close().
  Relays(AsyncIo& io, std::size_t most, std::function<void()> ended = {});
  Relays(const Relays&) = delete;
  Relays& operator=(const Relays&) = delete;
  ~Relays();

  [[nodiscard]] std::size_t count() const { return relays_.size(); }
  // Takes two stream sockets in blocking mode, and starts. When there are `most` already, or after
  // close(), both are reset.
  void add(Fd one, Fd other);
  // Resets all.
  void close();

 private:
  class Relay;
  void leave(std::list<std::shared_ptr<Relay>>::iterator position);

  AsyncIo& io_;
  const std::size_t most_;
  const std::function<void()> ended_;
  bool closed_ = false;
  std::list<std::shared_ptr<Relay>> relays_;
};

}  // namespace msb::launcher
