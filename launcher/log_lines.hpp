// SPDX-License-Identifier: Apache-2.0
// What a command writes, as the lines of a log: {"time_ms":…,"stream":"stdout","text":"…\n"}. Pure;
// the bytes are the guest's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "protocol/msb_exec.h"

namespace msb::launcher {

// Cuts standard output and standard error at newlines, and what has none at kLongest. Text that is
// not UTF-8 is replaced by U+FFFD.
class LogLines {
 public:
  static constexpr std::size_t kLongest = std::size_t{16} << 10;  // bytes

  // The lines that are complete now. `time_ms`: since 1970.
  std::string append(msb_stream stream, std::span<const std::byte> bytes, std::uint64_t time_ms);
  // What has no newline yet, but for a character that may still become complete.
  std::string flush(std::uint64_t time_ms);
  // All that is left.
  std::string finish(std::uint64_t time_ms);
  // Whether there is something that flush() would give.
  [[nodiscard]] bool partial() const;

 private:
  std::array<std::string, 2> pending_;  // of each stream: what came behind the last line
};

}  // namespace msb::launcher
