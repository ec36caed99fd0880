// SPDX-License-Identifier: Apache-2.0
// What the connections of a sandbox's socket lead to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "launcher/network/relay.hpp"

namespace msb::launcher {

// Used on the loop's thread, which must be drained after close().
class SocketConnections {
 public:
  // Each takes a stream socket in blocking mode, on which OK is still to be written.
  struct Ways {
    std::function<void(Fd)> supervisor;
    std::function<Result<void>(Fd, std::uint32_t guest_port)> guest;
  };
  // How many lead into the guest now.
  using Changed = std::function<void(std::size_t)>;

  // The machine has the connections to itself, and says nothing of their ends. To be counted, which
  // is what `changed` asks for, they have to be carried through here.
  SocketConnections(AsyncIo& io, Ways ways, Changed changed);

  Result<void> connect(Fd socket, std::uint32_t port);
  void close();

 private:
  void tell();

  const Ways ways_;
  const Changed changed_;
  std::optional<Relays> relays_;
};

}  // namespace msb::launcher
