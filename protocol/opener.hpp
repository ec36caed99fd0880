// SPDX-License-Identifier: Apache-2.0
// How a client gets a connection to a port in a guest, whatever the way in is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "protocol/msb_exec.h"

namespace msb::protocol {

// Gives a stream socket, in blocking mode, on which the agent's port is asked for: the line
// "OK <number>\n" comes on it once the guest has accepted, then the guest's bytes. It is closed
// when the guest does not accept. One may write at once.
using Opener = std::function<Result<Fd>()>;

// Connects to a sandbox's Unix socket and asks for a port in its guest. Never waits. Fails with one
// sentence: no such file, no socket, nobody listening (the sandbox has ended), no permission, too
// many waiting.
Result<Fd> connect_sandbox(const std::string& path, std::uint32_t guest_port);
Opener open_sandbox(std::string path, std::uint32_t guest_port = MSB_PORT_AGENT);

// The answer, without its newline: "OK " and a number.
inline constexpr std::size_t kMaxGreeting = 13;
bool is_greeting(std::string_view line);
// What answers otherwise.
Error not_a_sandbox();          // code EPROTO
Error ended_before_greeting();  // code ECONNRESET

// Of a sandbox's socket: no port of the guest's, but the sandbox's supervisor, which is attached to
// as if it were the agent and its command the only process (docs/exec-protocol.md).
inline constexpr std::uint32_t kSupervisorPort = 0;

// The request's line. parse_connect() takes it without its newline.
inline constexpr std::size_t kMaxConnectLine = 18;
std::string connect_line(std::uint32_t guest_port);  // with its newline
Result<std::uint32_t> parse_connect(std::string_view line);

}  // namespace msb::protocol
