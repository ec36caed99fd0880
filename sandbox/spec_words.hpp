// SPDX-License-Identifier: Apache-2.0
// The values of a spec as users write them, in a Sandboxfile and on the command line. Pure. Errors
// quote the word and say what it may be; what it is of, the caller says in front.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "sandbox/spec.hpp"

namespace msb::sandbox {

inline constexpr std::uint64_t kMinDiskMib = 16;
inline constexpr std::uint64_t kMaxDiskMib = std::uint64_t{16} * 1024 * 1024;
inline constexpr std::uint32_t kMaxProcesses = 4 * 1024 * 1024;  // PID_MAX_LIMIT of Linux
inline constexpr std::uint32_t kMaxDuration = 365 * 24 * 60 * 60;
inline constexpr std::size_t kMaxVolumes = 60;  // of kMaxShares; some are for what is ours

Result<std::uint32_t> parse_cpus(std::string_view word);
// MiB, from a number of them, or one with M, G or T, which are powers of 1024.
Result<std::uint32_t> parse_memory(std::string_view word);
Result<std::uint64_t> parse_disk(std::string_view word);
Result<std::uint32_t> parse_processes(std::string_view word);
// Seconds, from a number of them, or one with s, m, h or d; at least one.
Result<std::uint32_t> parse_duration(std::string_view word);
// HOST:GUEST[:ro|:rw], or an absolute PATH[:ro|:rw] for the same on both sides.
Result<Volume> parse_volume(std::string_view word);
// none, local (or group), public, any.
Result<Scope> parse_scope(std::string_view word);
std::string_view scope_word(Scope scope);
// A rule of base/network_policy.hpp.
Result<void> check_rule(std::string_view word);

// A reference, or the path of a local image.
Result<void> check_image(std::string_view word);
// [ADDRESS:]HOSTPORT:GUESTPORT[/udp] or PORT[/udp].
Result<void> check_port(std::string_view word);
// NAME=VALUE. A bare NAME would take the value out of the caller's environment.
Result<void> check_env(std::string_view word);
Result<void> check_path(std::string_view word);
Result<void> check_workdir(std::string_view word);
// USER[:GROUP], by names or numbers.
Result<void> check_user(std::string_view word);
// An absolute path, or the name of a program.
Result<void> check_shell(std::string_view word);
// [A-Za-z0-9_.-], 1 to 64 of them, as the name of a file.
Result<void> check_script_name(std::string_view word);
// Whatever can be an argument of a program.
Result<void> check_text(std::string_view word);

}  // namespace msb::sandbox
