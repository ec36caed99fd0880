// SPDX-License-Identifier: Apache-2.0
#include "launcher/output_log.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <utility>

#include "launcher/paths.hpp"

namespace msb::launcher {

namespace {

std::uint64_t now_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

// Like write(2), and goes on after a signal.
ssize_t write_some(int file, const std::string& text) {
  ssize_t written = 0;
  do {
    written = ::write(file, text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  return written;
}

}  // namespace

Result<std::unique_ptr<OutputLog>> OutputLog::open(AsyncIo& io, std::string path,
                                                   std::function<void(const Error&)> trouble,
                                                   Limits limits) {
  std::unique_ptr<OutputLog> log(new OutputLog(io, std::move(path), std::move(trouble), limits));
  if (auto opened = log->open_file(); !opened) {
    return std::unexpected(opened.error());
  }
  return log;
}

OutputLog::OutputLog(AsyncIo& io, std::string path, std::function<void(const Error&)> trouble,
                     Limits limits)
    : io_(io),
      path_(std::move(path)),
      trouble_(std::move(trouble)),
      limits_(limits),
      patience_([this](std::int32_t result) { on_patience_over(result); }) {}

Result<void> OutputLog::open_file() {
  // O_NONBLOCK: a FIFO would wait for a reader, before it is found to be none of ours.
  Fd file(::open(path_.c_str(),
                 O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
                 S_IRUSR | S_IWUSR));
  struct stat status{};
  if (!file || ::fstat(file.get(), &status) != 0) {
    return errno == ELOOP
               ? fail("the log \"{}\" is a symbolic link; name the file itself", shown_path(path_))
               : fail_errno(errno, "cannot open the log \"{}\"", shown_path(path_));
  }
  if (!S_ISREG(status.st_mode)) {
    return fail("the log \"{}\" is no regular file", shown_path(path_));
  }
  file_ = std::move(file);
  size_ = static_cast<std::uint64_t>(status.st_size);
  // A line that was cut off, when this host lost power for example, is not to swallow the next one.
  char last = '\n';
  if (size_ > 0 && ::pread(file_.get(), &last, 1, status.st_size - 1) == 1 && last != '\n') {
    size_ += write_some(file_.get(), "\n") == 1 ? 1 : 0;
  }
  return {};
}

void OutputLog::add(msb_stream stream, std::span<const std::byte> bytes) {
  write(lines_.append(stream, bytes, now_ms()));
  if (lines_.partial() && !patience_.pending()) {
    io_.timeout(limits_.patience_ns, patience_);
  }
}

void OutputLog::on_patience_over(std::int32_t result) {
  if (result == -ETIME) {
    write(lines_.flush(now_ms()));
  }
}

void OutputLog::close() {
  if (file_) {
    write(lines_.finish(now_ms()));
    file_.reset();
  }
  io_.cancel(patience_);
}

void OutputLog::rotate() {
  const std::string old = path_ + ".1";
  if (::rename(path_.c_str(), old.c_str()) != 0 && errno != ENOENT) {
    tell(cannot_rotate_, fail_errno(errno, "the log \"{}\" grows: it cannot be renamed to \"{}\"",
                                    shown_path(path_), shown_path(old))
                             .error());
  } else if (auto opened = open_file(); !opened) {
    tell(cannot_rotate_, opened.error());  // the old file, under its new name, takes what comes
  } else {
    cannot_rotate_ = false;
  }
}

// To the page cache: it does not wait for the disk, unless this host has far too much to write.
void OutputLog::write(const std::string& lines) {
  if (lines.empty() || !file_) {
    return;
  }
  if (size_ > 0 && size_ + lines.size() > limits_.file_bytes) {
    rotate();
  }
  const ssize_t written = write_some(file_.get(), lines);
  if (written == static_cast<ssize_t>(lines.size())) {
    size_ += lines.size();
    cannot_write_ = false;
    return;
  }
  const int code = written < 0 ? errno : ENOSPC;
  if (written > 0 && ::ftruncate(file_.get(), static_cast<off_t>(size_)) != 0) {
    size_ += static_cast<std::uint64_t>(written);  // half a line stays, which no reader takes
  }
  tell(cannot_write_,
       fail_errno(code, "output is lost: cannot write to the log \"{}\"", shown_path(path_))
           .error());
}

void OutputLog::tell(bool& known, const Error& trouble) const {
  if (!std::exchange(known, true)) {
    trouble_(trouble);
  }
}

}  // namespace msb::launcher
