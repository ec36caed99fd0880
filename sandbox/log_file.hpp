// SPDX-License-Identifier: Apache-2.0
// What a sandbox's command has written, read from its log. The supervisor writes it (one object of
// JSON a line), but a log may as well have come with a cloned repository.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::sandbox {

enum class LogStream : std::uint8_t { kOutput, kError };

struct LogLine {
  std::int64_t time_ms = 0;  // since 1970
  LogStream stream = LogStream::kOutput;
  std::string text;  // ends with a newline, unless the command had written none by then
};

// Nothing for what is no such line.
std::optional<LogLine> parse_log_line(std::string_view line);

// A log is `path`.1 and then `path`; the supervisor renames the second to the first from time to
// time.
class LogReader {
 public:
  using Each = std::function<Result<void>(const LogLine&)>;

  // At most so many bytes of one file are looked at, the last ones, and no line that is longer.
  static constexpr std::uint64_t kMaxFile = std::uint64_t{64} << 20;
  static constexpr std::size_t kMaxLine = std::size_t{128} << 10;

  explicit LogReader(std::string path) : path_(std::move(path)) {}

  // Begins at the start, or with the last so many lines. False when there is no log.
  Result<bool> open(std::optional<std::uint64_t> last_lines = std::nullopt);
  // Gives what is there and was not given. May be called again and again; `each` may fail.
  Result<void> read(const Each& each);
  // The same, of about so many bytes. False when there is more.
  Result<bool> read_some(const Each& each, std::uint64_t bytes);
  // That nothing more will come.
  void finish();

  // Lines that were none, so far.
  [[nodiscard]] std::uint64_t bad_lines() const { return bad_lines_; }
  // The file that is being read; for watching it.
  [[nodiscard]] const Fd& file() const { return current_.fd; }

 private:
  struct File {
    Fd fd;
    ino_t inode = 0;
    std::uint64_t size = 0;
    std::uint64_t position = 0;
  };

  static Result<std::optional<File>> open_file(const std::string& path);
  static Result<std::uint64_t> find_last(File& file, std::uint64_t lines);
  Result<bool> read_file(File& file, const Each& each, std::uint64_t& budget);
  Result<void> take(std::string_view bytes, const Each& each);
  Result<void> take_line(std::string_view line, const Each& each);
  void end_file();

  std::string path_;
  std::optional<File> before_;  // the one before, until it is read
  File current_;
  std::string part_;       // of a line that has no end yet
  bool too_long_ = false;  // what has no end yet is passed over
  std::uint64_t bad_lines_ = 0;
};

}  // namespace msb::sandbox
