// SPDX-License-Identifier: Apache-2.0
// What users write on the command line for limits, masks and signals. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "protocol/host_frames.hpp"

namespace msb::launcher {

// NAME=SOFT[:HARD], with the names of ulimit(1) as container engines have them (nofile, nproc, …)
// and "unlimited" or -1 for none. Without HARD both are SOFT.
Result<protocol::Limit> parse_limit(std::string_view word);

// Octal, at most 777.
Result<std::uint32_t> parse_umask(std::string_view word);

// TERM, SIGTERM, term or 15; also RTMIN+n.
Result<std::uint32_t> parse_signal(std::string_view word);

// A process's id in the exec protocol.
Result<std::uint32_t> parse_process_id(std::string_view word);

// Fails unless it can be the host name of a sandbox, as the guest's init checks it too.
Result<void> check_hostname(std::string_view name);

// How long a sandbox may take to stop: seconds, to milliseconds; 0 to 600.
Result<std::uint32_t> parse_stop_timeout(std::string_view word);

// Seconds, to milliseconds; at most 4,294,967.
Result<std::uint32_t> parse_timeout(std::string_view word);

}  // namespace msb::launcher
