// SPDX-License-Identifier: Apache-2.0
// How processes end, as the documents and events of /v1 have it.
#pragma once

#include <cstdint>
#include <string>

#include "protocol/process.hpp"
#include "server/exchange.hpp"

namespace msb::server::v1 {

// "KILL"; a real-time signal by its number.
std::string signal_name(std::uint32_t number);
Json describe_exit(const protocol::Exited& exited);
Json exited_event(const protocol::Exited& exited);

}  // namespace msb::server::v1
