// SPDX-License-Identifier: Apache-2.0
// Pairs of stream sockets, each of which gets what comes from the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>

#include "base/async_io.hpp"
#include "base/fd.hpp"

namespace msb::launcher {

// Has the next close(2) of a TCP socket send a reset instead of an orderly end. Nothing happens to
// other sockets.
void reset_at_close(int socket);

// Whether both directions of a socket are over, or it was reset: nobody reads what is written to
// it.
bool is_gone(int socket);

// An end of stream is passed on by shutdown(2), and a pair is over when both have come, or when one
// side is gone altogether. A reset of one side is one of the other, if that is TCP. Each direction
// has a buffer of kRelayBuffer bytes and reads only when it is empty, so that who reads slowly
// slows down who writes. The loop does not tell of a side that goes after it has ended its half:
// that is looked for every few seconds. Used on the loop's thread, to be drained after close().
class Relays {
 public:
  static constexpr std::size_t kRelayBuffer = 65536;

  static constexpr std::uint64_t kLook = 5'000'000'000;  // nanoseconds

  // Gets what has come from a side and was not passed on: returns how much of it, from the front,
  // may be, or nothing to end the pair. The rest comes again, with more behind it; it may not fill
  // the buffer, and is dropped at the end.
  using Filter = std::function<std::optional<std::size_t>(std::span<const std::byte>)>;

  // `ended` is optional; it runs after one has ended, but not after close(). `look`: how often, in
  // nanoseconds, sides that have ended their half are looked at.
  Relays(AsyncIo& io, std::size_t most, std::function<void()> ended = {},
         std::uint64_t look = kLook);
  Relays(const Relays&) = delete;
  Relays& operator=(const Relays&) = delete;
  ~Relays();

  [[nodiscard]] std::size_t count() const { return relays_.size(); }
  // Takes two stream sockets in blocking mode, and starts. When there are `most` already, or after
  // close(), both are reset. `filter`: of what comes from `one`; without it all passes.
  void add(Fd one, Fd other, Filter filter = {});
  // Resets all.
  void close();

 private:
  class Relay;
  void leave(std::list<std::shared_ptr<Relay>>::iterator position);
  void look_later();
  void on_look(std::int32_t result);

  AsyncIo& io_;
  const std::size_t most_;
  const std::function<void()> ended_;
  bool closed_ = false;
  std::list<std::shared_ptr<Relay>> relays_;
  const std::uint64_t look_;
  Operation timer_;
};

}  // namespace msb::launcher
