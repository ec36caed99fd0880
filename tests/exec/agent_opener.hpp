// SPDX-License-Identifier: Apache-2.0
// The way from the host's client to an agent of this process's own, as the machine's vsock device
// makes it: a socket on which "OK <number>\n" comes before the agent's bytes.
#pragma once

#include <thread>
#include <vector>

#include "initramfs/test_agent.hpp"
#include "protocol/opener.hpp"

namespace msb::test {

class AgentOpener {
 public:
  explicit AgentOpener(const Agent& agent) : agent_(agent) {}
  // Waits for every connection that it gave to be closed at both ends.
  ~AgentOpener() = default;

  protocol::Opener opener();

 private:
  const Agent& agent_;
  std::vector<std::jthread> pumps_;
};

}  // namespace msb::test
