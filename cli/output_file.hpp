// SPDX-License-Identifier: Apache-2.0
// A file that a command writes: it appears under its name when it is whole.
#pragma once

#include <string>
#include <utility>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::cli {

class OutputFile {
 public:
  // "-" is standard output, which must not be a terminal; what exists and is no regular file is
  // written as it is.
  static Result<OutputFile> create(const std::string& path);
  OutputFile(OutputFile&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::exchange(other.temporary_, {})),
        unnamed_(other.unnamed_),
        fd_(std::move(other.fd_)) {}
  OutputFile& operator=(OutputFile&&) = delete;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();

  [[nodiscard]] int fd() const { return fd_.get(); }

  // Puts the file in the place of what has its name.
  Result<void> finish();

 private:
  OutputFile(std::string path, std::string temporary, Fd fd, bool unnamed = false)
      : path_(std::move(path)),
        temporary_(std::move(temporary)),
        unnamed_(unnamed),
        fd_(std::move(fd)) {}

  std::string path_;
  std::string temporary_;  // the file's name until then; empty where it has none of its own
  bool unnamed_;           // it has no name at all until then
  Fd fd_;
};

}  // namespace msb::cli
