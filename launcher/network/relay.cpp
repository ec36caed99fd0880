// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/relay.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace msb::launcher {

namespace {

bool is_tcp(int socket) {
  int domain = 0;
  socklen_t size = sizeof domain;
  return ::getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain != AF_UNIX;
}

// What comes from the other side was put together there already.
void send_at_once(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // refused where it is not TCP
}

}  // namespace

bool is_gone(int socket) {
  pollfd entry{.fd = socket, .events = 0, .revents = 0};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & (POLLHUP | POLLERR)) != 0;
}

void reset_at_close(int socket) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

// Keeps itself until the loop has let go of it.
class Relays::Relay : public std::enable_shared_from_this<Relay> {
 public:
  Relay(Relays& owner, Fd one, Fd other, Filter filter)
      : owner_(&owner),
        io_(owner.io_),
        one_(std::move(one)),
        other_(std::move(other)),
        filter_(std::move(filter)),
        there_(*this, one_.get(), other_.get()),
        back_(*this, other_.get(), one_.get()) {}

  void start(std::list<std::shared_ptr<Relay>>::iterator position) {
    position_ = position;
    self_ = shared_from_this();
    send_at_once(one_.get());
    send_at_once(other_.get());
    read(there_);
    read(back_);
  }

  // Whether one direction has ended and the other goes on. Ends when the side that ended is gone.
  bool look() {
    if (ending_ || there_.ended == back_.ended) {
      return false;
    }
    const int source = there_.ended ? there_.from : back_.from;
    if (!is_gone(source)) {
      return true;
    }
    end(is_tcp(source));
    return false;
  }

  // Leaves its owner. The sockets are closed when the loop has let go of them.
  void end(bool reset) {
    if (std::exchange(ending_, true)) {
      return;
    }
    reset_ = reset;
    io_.cancel(there_.operation);
    io_.cancel(back_.operation);
    owner_->leave(position_);
  }

 private:
  struct Direction {
    Direction(Relay& relay, int source, int destination)
        : from(source),
          to(destination),
          operation([&relay, this](std::int32_t result) { relay.complete(*this, result); }) {}
    const int from;
    const int to;
    // Untouched memory costs nothing until something comes.
    std::unique_ptr<std::byte[]> buffer = std::make_unique_for_overwrite<std::byte[]>(kRelayBuffer);
    iovec place{};         // in the buffer: what is read into, or is still to be written
    std::size_t size = 0;  // of what is still to be written; 0: it reads
    // Of what the filter holds back, in the buffer behind what is written, then at its front.
    std::size_t held = 0;
    bool ended = false;
    Operation operation;
  };

  void complete(Direction& direction, std::int32_t result) {
    const auto kept = shared_from_this();
    if (!ending_) {
      direction.size == 0 ? on_read(direction, result) : on_written(direction, result);
    }
    if (ending_ && !there_.operation.pending() && !back_.operation.pending()) {
      if (reset_) {
        reset_at_close(one_.get());
        reset_at_close(other_.get());
      }
      one_.reset();
      other_.reset();
      self_.reset();
    }
  }

  void read(Direction& direction) {
    direction.size = 0;
    direction.place = {direction.buffer.get() + direction.held, kRelayBuffer - direction.held};
    io_.read(direction.from, {&direction.place, 1}, AsyncIo::kNoOffset, direction.operation);
  }

  void write(Direction& direction) {
    direction.place.iov_len = direction.size;
    io_.write(direction.to, {&direction.place, 1}, AsyncIo::kNoOffset, direction.operation);
  }

  void on_read(Direction& direction, std::int32_t result) {
    if (result > 0) {
      pass(direction, direction.held + static_cast<std::size_t>(result));
    } else if (result == 0) {
      // Who has closed its socket altogether, and not half of it, has no use for what would come:
      // the other side finds out as if there were no relay, by close(2).
      ::shutdown(direction.to, SHUT_WR);
      end_direction(direction, is_gone(direction.from));
    } else if (result == -EINTR) {
      read(direction);
    } else {
      end(true);
    }
  }

  // What may be of the first `size` bytes in the buffer.
  void pass(Direction& direction, std::size_t size) {
    std::optional<std::size_t> passes = size;
    if (&direction == &there_ && filter_) {
      passes = filter_({direction.buffer.get(), size});
    }
    if (!passes) {
      end(true);
      return;
    }
    direction.size = *passes;
    direction.held = size - *passes;
    if (direction.size == 0) {
      read(direction);
      return;
    }
    direction.place.iov_base = direction.buffer.get();
    write(direction);
  }

  void on_written(Direction& direction, std::int32_t result) {
    if (result == -EINTR) {
      write(direction);
    } else if (result <= 0 && is_tcp(direction.to)) {
      end(true);
    } else if (result <= 0) {
      // A Unix socket whose other end was closed: what that had written before still comes.
      end_direction(direction, false);
    } else {
      direction.size -= static_cast<std::size_t>(result);
      auto* const rest = static_cast<std::byte*>(direction.place.iov_base) + result;
      direction.place.iov_base = rest;
      if (direction.size > 0) {
        write(direction);
        return;
      }
      std::memmove(direction.buffer.get(), rest, direction.held);
      read(direction);
    }
  }

  void end_direction(Direction& direction, bool last) {
    direction.ended = true;
    if (last || (there_.ended && back_.ended)) {
      end(false);
    } else {
      owner_->look_later();
    }
  }

  Relays* const owner_;  // until its end
  AsyncIo& io_;
  Fd one_;
  Fd other_;
  const Filter filter_;
  Direction there_;
  Direction back_;
  bool ending_ = false;
  bool reset_ = false;
  std::list<std::shared_ptr<Relay>>::iterator position_;
  std::shared_ptr<Relay> self_;
};

Relays::Relays(AsyncIo& io, std::size_t most, std::function<void()> ended, std::uint64_t look)
    : io_(io),
      most_(most),
      ended_(std::move(ended)),
      look_(look),
      timer_([this](std::int32_t result) { on_look(result); }) {}

Relays::~Relays() {
  close();
}

void Relays::add(Fd one, Fd other, Filter filter) {
  if (closed_ || relays_.size() >= most_) {
    reset_at_close(one.get());
    reset_at_close(other.get());
    return;
  }
  relays_.push_front(
      std::make_shared<Relay>(*this, std::move(one), std::move(other), std::move(filter)));
  relays_.front()->start(relays_.begin());
}

void Relays::close() {
  closed_ = true;
  io_.cancel(timer_);
  while (!relays_.empty()) {
    const auto relay = relays_.front();
    relay->end(true);
  }
}

void Relays::look_later() {
  if (!closed_ && !timer_.pending()) {
    io_.timeout(look_, timer_);
  }
}

void Relays::on_look(std::int32_t result) {
  if (result != -ETIME || closed_) {
    return;
  }
  bool again = false;
  for (const auto& relay : std::vector(relays_.begin(), relays_.end())) {
    again = relay->look() || again;
  }
  if (again) {
    look_later();
  }
}

void Relays::leave(std::list<std::shared_ptr<Relay>>::iterator position) {
  relays_.erase(position);
  if (ended_ && !closed_) {
    ended_();
  }
}

}  // namespace msb::launcher
