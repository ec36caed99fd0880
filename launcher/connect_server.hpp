// SPDX-License-Identifier: Apache-2.0
// The sandbox's Unix socket, by which programs on this host reach ports in its guest: they write
// "CONNECT <port>\n", read "OK <number>\n", and what follows is the connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "launcher/unix_listener.hpp"

namespace msb::launcher {

// Reads the line of each connection, and not a byte more, and gives the connection away. Only this
// user can connect (mode 0600). The loop must be drained, after close(), before it is destroyed.
class ConnectServer {
 public:
  // Takes a stream socket in blocking mode that is to become a connection to `guest_port`, and on
  // which OK is still to be written. When it fails the connection is closed.
  using Connect = std::function<Result<void>(Fd socket, std::uint32_t guest_port)>;

  struct Limits {
    std::uint64_t line_timeout_ns = 10'000'000'000;  // from the connection to its line's end
    std::size_t pending = 256;                       // connections without a line yet
  };

  // Makes the socket. Whoever connects waits until open(). Fails as UnixListener::create() does.
  static Result<std::unique_ptr<ConnectServer>> create(AsyncIo& io, const std::string& path,
                                                       Connect connect, Limits limits);
  ConnectServer(const ConnectServer&) = delete;
  ConnectServer& operator=(const ConnectServer&) = delete;
  ~ConnectServer();

  // Starts to serve.
  void open();
  // Removes the socket and closes every connection that was not given away.
  void close();

 private:
  class Client;
  ConnectServer(AsyncIo& io, Connect connect, Limits limits);
  void on_accepted(Fd socket);
  void leave(Client* client);

  AsyncIo& io_;
  Connect connect_;
  const Limits limits_;
  std::size_t pending_ = 0;
  Client* clients_ = nullptr;  // a list of those without a line yet, each of which keeps itself
  std::unique_ptr<UnixListener> listener_;
};

}  // namespace msb::launcher
