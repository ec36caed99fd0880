// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/connector.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <utility>

namespace msb::launcher {

// Keeps itself until the loop has let go of it. Goes on only when neither operation is pending.
class Connector::State : public std::enable_shared_from_this<State> {
 public:
  State(AsyncIo& io, std::vector<SocketAddress> addresses, std::uint64_t timeout, Done done)
      : io_(io),
        addresses_(std::move(addresses)),
        timeout_(timeout),
        done_(std::move(done)),
        connected_([this](std::int32_t result) { complete(result); }),
        timer_([this](std::int32_t) { complete(0); }) {}

  void start() {
    self_ = shared_from_this();
    io_.timeout(0, timer_);
  }

  void close() {
    if (!std::exchange(ended_, true)) {
      io_.cancel(connected_);
      io_.cancel(timer_);
    }
  }

 private:
  // `ready`: what poll(2) says of the socket.
  void complete(std::int32_t ready) {
    const auto kept = shared_from_this();
    is_ready_ = is_ready_ || ready > 0;
    if (connected_.pending() || timer_.pending()) {
      io_.cancel(connected_);
      io_.cancel(timer_);
      return;
    }
    if (!ended_) {
      go_on();
    }
    if (ended_ && !connected_.pending() && !timer_.pending()) {
      socket_.reset();
      self_.reset();
    }
  }

  void go_on() {
    if (socket_ && is_connected()) {
      finish(std::move(socket_));
      return;
    }
    while (next_ < addresses_.size()) {
      if (try_next()) {
        return;
      }
    }
    finish(fail_errno(code_, "cannot connect to {}",
                      addresses_.empty() ? "" : addresses_.back().text()));
  }

  bool is_connected() {
    code_ = ETIMEDOUT;
    socklen_t size = sizeof code_;
    return is_ready_ && ::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &code_, &size) == 0 &&
           code_ == 0 && ::fcntl(socket_.get(), F_SETFL, 0) == 0;
  }

  // Whether it is under way.
  bool try_next() {
    const SocketAddress& address = addresses_[next_++];
    is_ready_ = false;
    socket_ = Fd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_ ||
        (::connect(socket_.get(), address.get(), address.size()) != 0 && errno != EINPROGRESS)) {
      code_ = errno;
      socket_.reset();
      return false;
    }
    io_.poll(socket_.get(), POLLOUT, connected_);
    io_.timeout(timeout_, timer_);
    return true;
  }

  void finish(Result<Fd> result) {
    ended_ = true;
    done_(std::move(result));
  }

  AsyncIo& io_;
  const std::vector<SocketAddress> addresses_;
  const std::uint64_t timeout_;
  const Done done_;
  std::size_t next_ = 0;  // of the addresses
  Fd socket_;
  bool is_ready_ = false;
  int code_ = EDESTADDRREQ;  // why the last one did not accept
  bool ended_ = false;
  Operation connected_;
  Operation timer_;
  std::shared_ptr<State> self_;
};

Connector::Connector(AsyncIo& io, std::vector<SocketAddress> addresses, std::uint64_t timeout,
                     Done done)
    : state_(std::make_shared<State>(io, std::move(addresses), timeout, std::move(done))) {
  state_->start();
}

Connector::~Connector() {
  state_->close();
}

}  // namespace msb::launcher
