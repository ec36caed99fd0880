// SPDX-License-Identifier: Apache-2.0
// The sandbox's Unix socket, by which programs on this host reach ports in its guest: they write
// "CONNECT <port>\n", read "OK <number>\n", and what follows is the connection.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

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

  // Makes the socket. Whoever connects waits until open(). Fails when `path` is too long, cannot be
  // made, is something else than a socket, or one that somebody serves; a socket that is left from
  // a dead process is replaced.
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
  ConnectServer(AsyncIo& io, std::string path, Fd socket, Connect connect, Limits limits);
  Result<void> remember_file();
  void remove_file();
  void accept_more();
  void on_acceptable(std::int32_t result);
  void leave(Client* client);

  AsyncIo& io_;
  const std::string path_;
  dev_t device_ = 0;  // the socket's file, to remove no other one
  ino_t inode_ = 0;
  Fd socket_;
  Connect connect_;
  const Limits limits_;
  bool open_ = false;
  std::size_t pending_ = 0;
  Client* clients_ = nullptr;  // a list of those without a line yet, each of which keeps itself
  Operation acceptable_;
  Operation retry_;
};

}  // namespace msb::launcher
