// SPDX-License-Identifier: Apache-2.0
#include "launcher/socket_connections.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "protocol/opener.hpp"

namespace msb::launcher {

namespace {

constexpr std::size_t kMostCounted = 1024;

}  // namespace

SocketConnections::SocketConnections(AsyncIo& io, Ways ways, Changed changed)
    : ways_(std::move(ways)), changed_(std::move(changed)) {
  if (changed_) {
    relays_.emplace(io, kMostCounted, [this] { tell(); });
  }
}

Result<void> SocketConnections::connect(Fd socket, std::uint32_t port) {
  if (port == protocol::kSupervisorPort) {
    ways_.supervisor(std::move(socket));
    return {};
  }
  if (!relays_) {
    return ways_.guest(std::move(socket), port);
  }
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail_errno(errno, "cannot create a socket pair");
  }
  Fd ours(ends[0]);
  if (auto connected = ways_.guest(Fd(ends[1]), port); !connected) {
    return connected;
  }
  relays_->add(std::move(socket), std::move(ours));
  tell();
  return {};
}

void SocketConnections::tell() {
  changed_(relays_->count());
}

void SocketConnections::close() {
  if (relays_) {
    relays_->close();
  }
}

}  // namespace msb::launcher
