// SPDX-License-Identifier: Apache-2.0
// What differs between the languages of interpreter sessions: how the interpreter is started in the
// guest, how a request is written, how a run is interrupted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace msb::protocol {

enum class Language { kPython, kJavascript, kShell };

// "python", "javascript" or "shell"; "node" and "sh", "bash" are other names for the latter two.
Result<Language> language_named(std::string_view name);
std::string_view name_of(Language language);

// Program and arguments that start a session; each below the 128 KiB that execve(2) takes.
std::vector<std::string> session_arguments(Language language);

// What goes into the channel before everything else; may be empty.
std::string session_greeting(Language language);
std::string encode_hello(Language language, std::uint32_t id);

inline constexpr std::size_t kMaxCode = std::size_t{16} << 20;      // bytes
inline constexpr std::size_t kMaxShellCode = std::size_t{1} << 20;  // a shell reads byte by byte

// Fails when the code is too long, is not UTF-8 (Python, JavaScript) or has a NUL byte (shell).
Result<std::string> encode_run(Language language, std::uint32_t id, std::string_view code);

// What is done at once to interrupt a run; after half of the grace every language gets SIGINT for
// its whole process group, for the run may wait for a program that ignores everything else.
enum class InterruptBy { kSignal, kGroupSignal, kMessage };
InterruptBy interrupted_by(Language language);
std::string encode_interrupt(std::uint32_t id);  // kMessage

// The label of a session's process, "session:LANGUAGE:NAME", by which any host process finds it.
struct SessionLabel {
  Language language = Language::kPython;
  std::string name;
  bool operator==(const SessionLabel&) const = default;
};

// Fails unless the name has 1 to 64 of A-Z a-z 0-9 . _ -
Result<std::string> encode_label(Language language, std::string_view name);
// Empty when it is not the label of a session.
std::optional<SessionLabel> parse_label(std::string_view label);

}  // namespace msb::protocol
