// SPDX-License-Identifier: Apache-2.0
// Interpreter sessions over the exec protocol's client: what a session needs, from an Opener.
#pragma once

#include <cstdint>
#include <memory>

#include "base/async_io.hpp"
#include "protocol/interpreters/session_process.hpp"
#include "protocol/opener.hpp"

namespace msb::protocol {

// Used on the loop's thread. `io` must outlive it, its processes and its timers, and be drained
// before it is destroyed.
class ClientSessionHost final : public SessionHost {
 public:
  // `opener`: gives connections to the agent's port of one sandbox.
  ClientSessionHost(AsyncIo& io, Opener opener);

  Result<std::unique_ptr<SessionProcess>> start(const SessionStart& start,
                                                SessionProcess::Events events) override;
  Result<std::unique_ptr<SessionProcess>> attach(std::uint32_t process,
                                                 SessionProcess::Events events) override;
  std::unique_ptr<SessionTimer> after(std::chrono::milliseconds delay,
                                      std::function<void()> function) override;

 private:
  class Graves;
  std::function<void(Fd, std::uint32_t)> burial();

  AsyncIo& io_;
  Opener opener_;
  std::shared_ptr<Graves> graves_;  // let go of when this is destroyed: what is killed stays killed
};

}  // namespace msb::protocol
