// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/tcp_listener.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace msb::launcher {

namespace {

// When there are no descriptors or no memory for another connection.
constexpr std::uint64_t kRetry = 100'000'000;  // nanoseconds
// In one turn of the loop, which has other work too.
constexpr int kAcceptedAtOnce = 64;

// What accept(2) says of a connection that came to nothing, and not of this process: the next one
// may be fine.
bool is_of_connection(int code) {
  switch (code) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

// Clients whose host is gone do not hold their place for ever: two minutes.
void keep_alive(int socket) {
  constexpr int kIdle = 60;      // seconds of silence
  constexpr int kInterval = 10;  // seconds between probes
  constexpr int kProbes = 6;
  const int on = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &kIdle, sizeof kIdle);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &kInterval, sizeof kInterval);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &kProbes, sizeof kProbes);
}

}  // namespace

TcpListener::TcpListener(AsyncIo& io, Fd socket, Owner owner)
    : io_(io),
      socket_(std::move(socket)),
      owner_(std::move(owner)),
      acceptable_([this](std::int32_t result) { on_acceptable(result); }),
      retry_([this](std::int32_t result) {
        if (result == -ETIME) {
          accept_more();
        }
      }) {}

TcpListener::~TcpListener() {
  close();
}

void TcpListener::open() {
  open_ = true;
  accept_more();
}

void TcpListener::close() {
  open_ = false;
  if (socket_) {
    // At once, even while the loop still holds the socket.
    ::shutdown(socket_.get(), SHUT_RDWR);
    io_.cancel(acceptable_);
    io_.cancel(retry_);
    socket_.reset();
  }
}

void TcpListener::accept_more() {
  if (open_ && owner_.has_room() && !acceptable_.pending() && !retry_.pending()) {
    io_.poll(socket_.get(), POLLIN, acceptable_);
  }
}

void TcpListener::on_acceptable(std::int32_t result) {
  if (result == -ECANCELED) {
    return;
  }
  for (int i = 0; i < kAcceptedAtOnce && open_ && owner_.has_room(); ++i) {
    Fd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (socket) {
      keep_alive(socket.get());
      owner_.accepted(std::move(socket));
    } else if (errno == EAGAIN) {
      break;
    } else if (!is_of_connection(errno)) {
      io_.timeout(kRetry, retry_);
      break;
    }
  }
  accept_more();
}

}  // namespace msb::launcher
