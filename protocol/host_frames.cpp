// SPDX-License-Identifier: Apache-2.0
#include "protocol/host_frames.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <string_view>

#include "protocol/frames.hpp"
#include "protocol/quote.hpp"

namespace msb::protocol {

namespace {

constexpr std::size_t kMaxStrings = 262'144;  // of arguments and variables together
constexpr std::uint32_t kMaxUmask = 0777;
constexpr std::uint32_t kMaxMode = 07777;
constexpr std::uint32_t kResources = 16;  // RLIM_NLIMITS of Linux
constexpr std::uint32_t kMaxSignal = 64;
constexpr std::uint32_t kMaxGraceMs = 600'000;
constexpr std::size_t kMaxEntropy = 512;
constexpr std::uint32_t kMaxPort = 65'535;

template <typename T>
void append(FrameBytes& to, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

// Appends `text` and the 0 byte that ends it.
void append_string(FrameBytes& to, const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text.c_str(), text.size() + 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

template <typename T>
FrameBytes encode_fields(std::uint32_t type, const T& fields) {
  return encode_frame(type, std::as_bytes(std::span(&fields, 1)));
}

bool has_nul(const std::string& text) {
  return text.find('\0') != std::string::npos;
}

Result<void> check_strings(const ProcessSpec& spec) {
  for (const auto* list : {&spec.arguments, &spec.environment, &spec.groups}) {
    if (std::ranges::any_of(*list, has_nul)) {
      return fail("the command, its environment or a group contains a NUL byte");
    }
  }
  if (has_nul(spec.label) || has_nul(spec.user) || has_nul(spec.directory)) {
    return fail("the label, the user or the working directory contains a NUL byte");
  }
  if (spec.arguments.empty()) {
    return fail("there is no command to run");
  }
  if (spec.arguments.size() + spec.environment.size() > kMaxStrings) {
    return fail("the command and its environment have {} strings; the limit is {}",
                spec.arguments.size() + spec.environment.size(), kMaxStrings);
  }
  for (const std::string& variable : spec.environment) {
    if (variable.find('=') == std::string::npos || variable.starts_with('=')) {
      return fail("the environment variable \"{}\" is not NAME=VALUE", quote(variable));
    }
  }
  if (!spec.directory.starts_with('/')) {
    return fail("the working directory \"{}\" is not absolute", quote(spec.directory));
  }
  if (spec.groups.size() > MSB_GROUPS_MAX) {
    return fail("{} groups are more than {}", spec.groups.size(), MSB_GROUPS_MAX);
  }
  return {};
}

Result<void> check_numbers(const ProcessSpec& spec) {
  if (spec.limits.size() > MSB_LIMITS_MAX) {
    return fail("{} limits are more than {}", spec.limits.size(), MSB_LIMITS_MAX);
  }
  for (const Limit& limit : spec.limits) {
    if (limit.resource >= kResources || limit.soft > limit.hard) {
      return fail("the limit of resource {} does not exist, or is softer than hard",
                  limit.resource);
    }
  }
  if (spec.umask > kMaxUmask) {
    return fail("the umask {:o} is larger than {:o}", spec.umask, kMaxUmask);
  }
  if (spec.keep.value_or(0) > MSB_KEEP_MAX) {
    return fail("{} bytes to keep are more than {}", *spec.keep, MSB_KEEP_MAX);
  }
  if (spec.terminal && !spec.input) {
    return fail("a terminal without standard input does not exist");
  }
  return {};
}

std::uint32_t flags_of(const ProcessSpec& spec) {
  return (spec.create_directory ? MSB_START_CREATE_DIRECTORY : 0) |
         (spec.keep ? MSB_START_KEEP : 0) | (spec.terminal ? MSB_START_TERMINAL : 0) |
         (spec.channel ? MSB_START_CHANNEL : 0) | (spec.input ? 0 : MSB_START_NO_STDIN);
}

}  // namespace

Result<FrameBytes> encode_start(const ProcessSpec& spec) {
  if (auto checked = check_strings(spec); !checked) {
    return std::unexpected(checked.error());
  }
  if (auto checked = check_numbers(spec); !checked) {
    return std::unexpected(checked.error());
  }
  FrameBytes payload;
  const TerminalSize size = spec.terminal.value_or(TerminalSize{0, 0});
  append(payload, msb_start{.flags = flags_of(spec),
                            .arguments = static_cast<std::uint32_t>(spec.arguments.size()),
                            .variables = static_cast<std::uint32_t>(spec.environment.size()),
                            .groups = static_cast<std::uint32_t>(spec.groups.size()),
                            .limits = static_cast<std::uint32_t>(spec.limits.size()),
                            .umask = spec.umask,
                            .timeout_ms = spec.timeout_ms,
                            .keep = spec.keep.value_or(0),
                            .rows = size.rows,
                            .columns = size.columns,
                            .reserved = 0});
  for (const Limit& limit : spec.limits) {
    append(payload, msb_limit{limit.resource, 0, limit.soft, limit.hard});
  }
  for (const auto* text : {&spec.label, &spec.user, &spec.directory}) {
    append_string(payload, *text);
  }
  for (const auto* list : {&spec.groups, &spec.arguments, &spec.environment}) {
    for (const std::string& text : *list) {
      append_string(payload, text);
    }
  }
  if (payload.size() > MSB_MAX_START) {
    return fail("the command and its environment take {} bytes; the limit is {}", payload.size(),
                MSB_MAX_START);
  }
  return encode_frame(MSB_START, payload);
}

FrameBytes encode_attach(const AttachSpec& spec) {
  msb_attach fields{.process = spec.process, .reserved = 0, .offsets = {}};
  std::ranges::copy(spec.offsets, fields.offsets);
  return encode_fields(MSB_ATTACH, fields);
}

void append_data(FrameBytes& to, std::uint32_t type, std::span<const std::byte> bytes) {
  const std::size_t frames = (bytes.size() + MSB_MAX_DATA - 1) / MSB_MAX_DATA;
  to.reserve(to.size() + bytes.size() + frames * sizeof(msb_frame_header));
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min<std::size_t>(bytes.size(), MSB_MAX_DATA));
    append(to, msb_frame_header{type, static_cast<std::uint32_t>(piece.size())});
    to.insert(to.end(), piece.begin(), piece.end());
    bytes = bytes.subspan(piece.size());
  }
}

Result<FrameBytes> encode_shutdown(std::uint32_t signal, std::uint32_t grace_ms) {
  if (signal > kMaxSignal || grace_ms > kMaxGraceMs) {
    return fail("there is no signal {}, or {} ms are longer than {}", signal, grace_ms,
                kMaxGraceMs);
  }
  return encode_fields(MSB_SHUTDOWN, msb_shutdown{signal, grace_ms});
}

Result<FrameBytes> encode_ping(std::span<const std::byte> bytes) {
  if (bytes.size() > MSB_MAX_SMALL) {
    return fail("{} bytes are too many for a ping; the limit is {}", bytes.size(), MSB_MAX_SMALL);
  }
  return encode_frame(MSB_PING, bytes);
}

Result<FrameBytes> encode_signal(std::uint32_t process, std::uint32_t signal, bool group) {
  if (signal < 1 || signal > kMaxSignal) {
    return fail("there is no signal {}", signal);
  }
  return encode_fields(MSB_SIGNAL, msb_signal{process, signal, group ? MSB_SIGNAL_GROUP : 0});
}

FrameBytes encode_resize(std::uint32_t process, TerminalSize size) {
  return encode_fields(MSB_RESIZE, msb_resize{process, size.rows, size.columns});
}

FrameBytes encode_process_request(std::uint32_t type, std::uint32_t process) {
  return encode_fields(type, msb_process_id{process});
}

FrameBytes encode_set_clock(std::uint64_t realtime_ns) {
  return encode_fields(MSB_SET_CLOCK, msb_clock{realtime_ns});
}

Result<FrameBytes> encode_add_entropy(std::span<const std::byte> bytes) {
  if (bytes.empty() || bytes.size() > kMaxEntropy) {
    return fail("{} bytes of entropy are outside 1 to {}", bytes.size(), kMaxEntropy);
  }
  return encode_frame(MSB_ADD_ENTROPY, bytes);
}

namespace {

// A request that is nothing but strings.
Result<FrameBytes> encode_strings(msb_frame_type type, std::string_view what,
                                  std::span<const std::string> strings) {
  FrameBytes payload;
  for (const std::string& text : strings) {
    if (has_nul(text)) {
      return fail("{} contains a NUL byte", what);
    }
    append_string(payload, text);
  }
  if (payload.size() > MSB_MAX_REQUEST) {
    return fail("{} takes {} bytes; the limit is {}", what, payload.size(), MSB_MAX_REQUEST);
  }
  return encode_frame(type, payload);
}

}  // namespace

Result<FrameBytes> encode_set_names(const std::string& host_name, const std::string& resolv_conf,
                                    const std::string& hosts) {
  return encode_strings(MSB_SET_NAMES, "the host name, resolv.conf or hosts file",
                        std::array<std::string, 3>{host_name, resolv_conf, hosts});
}

Result<FrameBytes> encode_share(bool read_only, const std::string& path, const std::string& place) {
  return encode_strings(MSB_SHARE, "the place of a share",
                        std::array<std::string, 3>{read_only ? "ro" : "rw", path, place});
}

Result<FrameBytes> encode_unshare(const std::string& place) {
  return encode_strings(MSB_UNSHARE, "the place of a share", std::array<std::string, 1>{place});
}

Result<FrameBytes> encode_socket_owner(const msb_socket& ends) {
  if ((ends.family != 4 && ends.family != 6) ||
      (ends.protocol != IPPROTO_TCP && ends.protocol != IPPROTO_UDP) || ends.local_port == 0 ||
      ends.remote_port == 0 || ends.reserved != 0) {
    return fail("there is no socket of family {}, protocol {}, ports {} and {}", ends.family,
                ends.protocol, ends.local_port, ends.remote_port);
  }
  return encode_fields(MSB_SOCKET_OWNER, ends);
}

Result<FrameBytes> encode_connect_tcp(std::uint32_t port) {
  if (port < 1 || port > kMaxPort) {
    return fail("there is no TCP port {}", port);
  }
  return encode_fields(MSB_CONNECT, msb_connect{MSB_CONNECT_TCP, port});
}

Result<FrameBytes> encode_connect_udp(std::uint32_t port) {
  if (port < 1 || port > kMaxPort) {
    return fail("there is no UDP port {}", port);
  }
  return encode_fields(MSB_CONNECT, msb_connect{MSB_CONNECT_UDP, port});
}

Result<FrameBytes> encode_connect_unix(const std::string& path) {
  FrameBytes payload;
  append(payload, msb_connect{MSB_CONNECT_UNIX, 0});
  append_string(payload, path);
  if (!path.starts_with('/') || has_nul(path) || payload.size() > MSB_MAX_SMALL) {
    return fail("the socket \"{}\" is not absolute, too long, or contains a NUL byte", quote(path));
  }
  return encode_frame(MSB_CONNECT, payload);
}

Result<FrameBytes> encode_file_request(std::uint32_t type, const msb_file_request& fields,
                                       std::initializer_list<std::string> paths) {
  if (fields.mode > kMaxMode) {
    return fail("the mode {:o} is larger than {:o}", fields.mode, kMaxMode);
  }
  FrameBytes payload;
  append(payload, fields);
  bool is_target = type == MSB_FILE_SYMLINK;  // the first path, then
  for (const std::string& path : paths) {
    const bool fits = is_target ? !path.empty() : path.starts_with('/');
    if (!fits || has_nul(path)) {
      return fail("the path \"{}\" is not absolute, or contains a NUL byte", quote(path));
    }
    append_string(payload, path);
    is_target = false;
  }
  if (payload.size() > MSB_MAX_REQUEST) {
    return fail("the paths take {} bytes; the limit is {}", payload.size(), MSB_MAX_REQUEST);
  }
  return encode_frame(type, payload);
}

}  // namespace msb::protocol
