// SPDX-License-Identifier: Apache-2.0
// What becomes of a sandbox's network while it runs: told to subscribers of its control socket, and
// where the machine has to act on it, to the machine.
#pragma once

#include <string_view>

#include "base/control.hpp"
#include "base/loop.hpp"
#include "base/result.hpp"
#include "launcher/control_server.hpp"
#include "launcher/json_rpc.hpp"
#include "launcher/machine_process.hpp"
#include "launcher/machine_requests.hpp"
#include "launcher/network/denial_reports.hpp"
#include "launcher/network/sandbox_network.hpp"
#include "protocol/opener.hpp"

namespace msb::launcher {

// Used on the loop's thread, which must be drained after close().
class NetworkEvents {
 public:
  // All must outlive it; `control` may be none.
  struct Parts {
    MachineProcess& machine;
    MachineRequests& requests;
    SandboxNetwork& network;
    ControlServer* control;
  };

  NetworkEvents(Loop& loop, const Parts& parts, protocol::Opener agent);
  // To be called once.
  void watch();
  // The machine's word on a packet that was not let out. Fails when it is none.
  Result<void> on_denied(const ControlMessage& message);
  void close() { denials_.close(); }

 private:
  void tell(std::string_view event, Json details);

  const Parts parts_;
  DenialReports denials_;
};

}  // namespace msb::launcher
