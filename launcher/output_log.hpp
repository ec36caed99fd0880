// SPDX-License-Identifier: Apache-2.0
// The file that keeps what a command writes (log_lines.hpp), and the one before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "launcher/log_lines.hpp"

namespace msb::launcher {

// Beyond a size the file becomes `path`.1, and is begun anew. Nobody else writes to it. What cannot
// be written, as on a full disk, is lost; it is tried again with what comes next. Used on the
// loop's thread, which must be drained after close().
class OutputLog {
 public:
  struct Limits {
    std::uint64_t file_bytes = std::uint64_t{16} << 20;
    std::uint64_t patience_ns = 100'000'000;  // with a line that has no end yet: it may be a prompt
  };

  // Goes on with the file, or makes it (mode 0600). Fails when it cannot be opened, or is no
  // regular file. `trouble` is told when writing, or to begin anew, fails, and not again before it
  // has worked.
  static Result<std::unique_ptr<OutputLog>> open(AsyncIo& io, std::string path,
                                                 std::function<void(const Error&)> trouble,
                                                 Limits limits);
  OutputLog(const OutputLog&) = delete;
  OutputLog& operator=(const OutputLog&) = delete;
  ~OutputLog() = default;

  void add(msb_stream stream, std::span<const std::byte> bytes);
  // Writes what is left.
  void close();

 private:
  OutputLog(AsyncIo& io, std::string path, std::function<void(const Error&)> trouble,
            Limits limits);
  Result<void> open_file();
  void rotate();
  void write(const std::string& lines);
  void tell(bool& known, const Error& trouble) const;
  void on_patience_over(std::int32_t result);

  AsyncIo& io_;
  const std::string path_;
  const std::function<void(const Error&)> trouble_;
  const Limits limits_;
  Fd file_;
  std::uint64_t size_ = 0;
  bool cannot_write_ = false;
  bool cannot_rotate_ = false;
  LogLines lines_;
  Operation patience_;
};

}  // namespace msb::launcher
