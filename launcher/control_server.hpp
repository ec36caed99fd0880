// SPDX-License-Identifier: Apache-2.0
// The sandbox's control socket (docs/control.md): JSON-RPC, one object per line.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "launcher/control_methods.hpp"
#include "launcher/line_client.hpp"
#include "launcher/running_shares.hpp"
#include "launcher/unix_listener.hpp"
#include "protocol/opener.hpp"

namespace msb::launcher {

// Trusts neither its clients nor the machine. The loop must be drained, after close(), before it is
// destroyed.
class ControlServer {
 public:
  struct Limits {
    std::size_t clients = 16;                             // those beyond are told so, and closed
    std::size_t waiting_bytes = LineClient::kMaxWaiting;  // for one client
  };

  // Makes the socket. Whoever connects waits until open(). Fails as UnixListener::create() does.
  // `machine` must outlive this, and not answer any more once it is destroyed. `agent`: the way to
  // the agent in the guest.
  static Result<std::unique_ptr<ControlServer>> create(AsyncIo& io, const std::string& path,
                                                       MachineRequests& machine,
                                                       protocol::Opener agent, SandboxFacts facts,
                                                       Limits limits);
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;
  ~ControlServer();

  // Starts to serve.
  void open();
  // Removes the socket and closes every connection.
  void close();

  // What became of the sandbox: its command runs, it is to end, it has ended. Each counts once.
  void running(std::optional<std::uint32_t> process) { methods_.running(process); }
  void stopping() { methods_.stopping(); }
  void stopped(int exit_status, const std::string& message) {
    methods_.stopped(exit_status, message);
  }
  void in_background() { methods_.in_background(); }
  // Who carries out what clients order. To be called before open().
  void obey(ControlMethods::Orders orders) { methods_.obey(std::move(orders)); }
  [[nodiscard]] bool has_subscribers() const {
    return std::ranges::any_of(seats_, &Seat::subscribed);
  }
  // Sends an event to every subscriber; `details`: the members that only this kind has.
  void tell(std::string_view event, Json details);

 private:
  struct Seat {
    std::shared_ptr<LineClient> client;
    bool subscribed = false;
  };

  ControlServer(AsyncIo& io, MachineRequests& machine, protocol::Opener agent, SandboxFacts facts,
                Limits limits);
  void on_accepted(Fd socket);
  void on_line(LineClient& client, const std::string& line);
  void on_left(const LineClient& client);
  void subscribe(const LineClient* client);

  AsyncIo& io_;
  const Limits limits_;
  RunningShares shares_;
  ControlMethods methods_;
  std::vector<Seat> seats_;
  std::unique_ptr<UnixListener> listener_;
};

}  // namespace msb::launcher
