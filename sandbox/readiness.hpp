// SPDX-License-Identifier: Apache-2.0
// Whether the programs in a sandbox that runs listen on the ports that they are there for.
#pragma once

#include <chrono>
#include <cstdint>
#include <set>
#include <string>

#include "base/result.hpp"

namespace msb::sandbox {

// The TCP ports on which something listens, as the agent says. `socket`: the sandbox's agent
// socket. Fails when the sandbox has ended.
Result<std::set<std::uint16_t>> listening_ports(const std::string& socket);

// Waits until all of `ports` are among them. Fails with those that are not when `patience` is over
// (code ETIMEDOUT), and when the sandbox has ended.
Result<void> wait_until_listening(const std::string& socket, const std::set<std::uint16_t>& ports,
                                  std::chrono::milliseconds patience);

// Waits until something listens on any port. Whether it did; fails when the sandbox has ended.
Result<bool> wait_until_serving(const std::string& socket, std::chrono::milliseconds patience);

}  // namespace msb::sandbox
