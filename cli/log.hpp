// SPDX-License-Identifier: Apache-2.0
// `msb log`
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "cli/context.hpp"
#include "sandbox/log_file.hpp"

namespace msb::cli {

struct LogWords {
  std::string file;  // -f
  std::string name;
  bool follow = false;
  std::optional<std::uint64_t> tail;
  std::string since;  // a time, or how long ago
  bool timestamps = false;
  Format format = Format::kTable;
};

// With `follow` until the sandbox has ended, or a signal ends this process.
Result<void> log(const LogWords& words);

// "10m", "2h", "90" (seconds), "3d", or an RFC 3339 time: milliseconds since 1970. `now_ms`:
// likewise.
Result<std::int64_t> parse_since(const std::string& text, std::int64_t now_ms);

// Lines of a log as they are shown: their text, to the streams that they were written to.
class LogPrinter {
 public:
  LogPrinter(Format format, bool timestamps) : format_(format), timestamps_(timestamps) {}

  // Adds a line. Fails when what is full cannot be written.
  Result<void> add(const sandbox::LogLine& line);
  // Writes what was added.
  Result<void> flush();

 private:
  [[nodiscard]] std::string shown(const sandbox::LogLine& line);

  const Format format_;
  const bool timestamps_;
  bool inside_[2] = {false, false};  // of each stream: its last line had no newline
  std::string waiting_;
  sandbox::LogStream stream_ = sandbox::LogStream::kOutput;  // that it is for
};

}  // namespace msb::cli
