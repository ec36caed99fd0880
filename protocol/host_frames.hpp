// SPDX-License-Identifier: Apache-2.0
// What the host says, as frames. Each function that can fail does so with one sentence that names
// the value which the agent would not take: what is refused here never reaches the guest. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "protocol/msb_exec.h"

namespace msb::protocol {

using FrameBytes = std::vector<std::byte>;  // one frame, header and payload

struct TerminalSize {
  std::uint16_t rows = 24;
  std::uint16_t columns = 80;
};

// A resource limit (getrlimit(2)).
struct Limit {
  std::uint32_t resource = 0;  // RLIMIT_* of Linux x86-64
  std::uint64_t soft = 0;      // UINT64_MAX: none
  std::uint64_t hard = 0;
};

// What START says.
struct ProcessSpec {
  std::vector<std::string> arguments;    // argv, at least one
  std::vector<std::string> environment;  // NAME=VALUE
  std::string directory = "/";           // absolute
  bool create_directory = true;          // when it is missing
  std::string user;                      // empty, NAME, UID, NAME:GROUP or UID:GID
  std::vector<std::string> groups;       // supplementary, by name or number
  std::string label;                     // for LIST; the agent shows 255 bytes of it
  std::vector<Limit> limits;
  std::uint32_t umask = MSB_UMASK_DEFAULT;
  std::uint32_t timeout_ms = 0;          // 0: never
  std::optional<std::uint32_t> keep;     // it outlives its connection, and so many bytes of each
                                         // stream stay readable; 0: the agent's default
  std::optional<TerminalSize> terminal;  // standard streams are one pseudo-terminal
  bool channel = false;                  // descriptor 3
  bool input = true;                     // else its standard input is /dev/null
};

// What ATTACH says.
struct AttachSpec {
  std::uint32_t process = 0;  // 0: the command of a supervisor that is asked
  // Of the first byte wanted of standard output, standard error and the channel; MSB_OFFSET_END for
  // only what is written from now on.
  std::array<std::uint64_t, MSB_STREAMS> offsets{};
};

Result<FrameBytes> encode_start(const ProcessSpec& spec);
FrameBytes encode_attach(const AttachSpec& spec);
// Appends `bytes` as frames of `type` (STDIN, CHANNEL_INPUT, FILE_DATA), cut to what one may carry.
// No bytes are no frame; the empty frame that ends a stream is encode_frame(type, {}).
void append_data(FrameBytes& to, std::uint32_t type, std::span<const std::byte> bytes);

Result<FrameBytes> encode_shutdown(std::uint32_t signal, std::uint32_t grace_ms);
Result<FrameBytes> encode_ping(std::span<const std::byte> bytes);
// `group`: to the process's group instead of to it alone.
Result<FrameBytes> encode_signal(std::uint32_t process, std::uint32_t signal, bool group);
FrameBytes encode_resize(std::uint32_t process, TerminalSize size);
// WAIT and FORGET.
FrameBytes encode_process_request(std::uint32_t type, std::uint32_t process);
FrameBytes encode_set_clock(std::uint64_t realtime_ns);
Result<FrameBytes> encode_add_entropy(std::span<const std::byte> bytes);
// An empty one leaves what is there.
Result<FrameBytes> encode_set_names(const std::string& host_name, const std::string& resolv_conf,
                                    const std::string& hosts);
// `path`: of a share in the virtio-fs device; `place`: an absolute path in the guest.
Result<FrameBytes> encode_share(bool read_only, const std::string& path, const std::string& place);
Result<FrameBytes> encode_unshare(const std::string& place);

// `ends`: the family is 4 or 6, the protocol TCP or UDP, and both ports are ones.
Result<FrameBytes> encode_socket_owner(const msb_socket& ends);

Result<FrameBytes> encode_connect_tcp(std::uint32_t port);
// Behind DONE, each datagram has its length in front.
Result<FrameBytes> encode_connect_udp(std::uint32_t port);
Result<FrameBytes> encode_connect_unix(const std::string& path);

// `type`: MSB_FILE_STAT to MSB_FILE_UNPACK, or MSB_FILE_DIFF. Every path must be absolute, but for
// the target of SYMLINK, which comes first.
Result<FrameBytes> encode_file_request(std::uint32_t type, const msb_file_request& fields,
                                       std::initializer_list<std::string> paths);

}  // namespace msb::protocol
