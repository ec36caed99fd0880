// SPDX-License-Identifier: Apache-2.0
// A Unix socket that a sandbox serves: its file, and the connections to it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::launcher {

// Only this user can connect (mode 0600). The loop must be drained, after close(), before it is
// destroyed.
class UnixListener {
 public:
  struct Owner {
    // Whether another connection is wanted. Those beyond wait in the socket's queue.
    std::function<bool()> has_room;
    // Gets a stream socket in blocking mode.
    std::function<void(Fd socket)> accepted;
  };

  // Makes the socket. Whoever connects waits until open(). Fails when `path` is too long, cannot be
  // made, is something else than a socket, or one that somebody serves; a socket that is left from
  // a dead process is replaced.
  static Result<std::unique_ptr<UnixListener>> create(AsyncIo& io, const std::string& path,
                                                      Owner owner);
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;
  ~UnixListener();

  // Starts to accept.
  void open();
  // Goes on with it; to be called when there is room again.
  void accept_more();
  // Removes the socket's file, unless another has taken its place.
  void close();

 private:
  UnixListener(AsyncIo& io, std::string path, Fd socket, Owner owner);
  Result<void> remember_file();
  void remove_file();
  void on_acceptable(std::int32_t result);

  AsyncIo& io_;
  const std::string path_;
  dev_t device_ = 0;  // the socket's file, to remove no other one
  ino_t inode_ = 0;
  Fd socket_;
  const Owner owner_;
  bool open_ = false;
  Operation acceptable_;
  Operation retry_;
};

}  // namespace msb::launcher
