// SPDX-License-Identifier: Apache-2.0
// A TCP connection to the first of several addresses that accepts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/socket_address.hpp"

namespace msb::launcher {

// Used on the loop's thread. May be destroyed at any time, also from inside `done`; before that
// `done` does not run.
class Connector {
 public:
  // Gets a stream socket in blocking mode, or why the last address did not accept.
  using Done = std::function<void(Result<Fd>)>;

  // Each address has `timeout` nanoseconds. `done` runs once, later.
  Connector(AsyncIo& io, std::vector<SocketAddress> addresses, std::uint64_t timeout, Done done);
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;
  ~Connector();

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace msb::launcher
