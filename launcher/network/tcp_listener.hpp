// SPDX-License-Identifier: Apache-2.0
// A listening TCP socket.
#pragma once

#include <cstdint>
#include <functional>

#include "base/async_io.hpp"
#include "base/fd.hpp"

namespace msb::launcher {

// The loop must be drained, after close(), before it is destroyed.
class TcpListener {
 public:
  struct Owner {
    // Whether another connection is wanted. Those beyond wait in the socket's queue.
    std::function<bool()> has_room;
    // Gets a stream socket in blocking mode.
    std::function<void(Fd socket)> accepted;
  };

  // `socket` listens, in non-blocking mode. Nothing is accepted before open().
  TcpListener(AsyncIo& io, Fd socket, Owner owner);
  TcpListener(const TcpListener&) = delete;
  TcpListener& operator=(const TcpListener&) = delete;
  ~TcpListener();

  // Starts to accept.
  void open();
  // Goes on with it; to be called when there is room again.
  void accept_more();
  void close();

 private:
  void on_acceptable(std::int32_t result);

  AsyncIo& io_;
  Fd socket_;
  const Owner owner_;
  bool open_ = false;
  Operation acceptable_;
  Operation retry_;
};

}  // namespace msb::launcher
