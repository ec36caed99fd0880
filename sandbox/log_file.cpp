// SPDX-License-Identifier: Apache-2.0
#include "sandbox/log_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "sandbox/files.hpp"

namespace msb::sandbox {

namespace {

constexpr std::size_t kPiece = std::size_t{64} << 10;  // bytes

// How many bytes came; fewer than asked for only at the end.
Result<std::size_t> read_at(int file, std::span<char> into, std::uint64_t position) {
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t length =
        ::pread(file, into.data() + done, into.size() - done, static_cast<off_t>(position + done));
    if (length < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot read the log");
    }
    if (length == 0) {
      break;
    }
    done += length < 0 ? 0 : static_cast<std::size_t>(length);
  }
  return done;
}

}  // namespace

std::optional<LogLine> parse_log_line(std::string_view line) {
  const Json document = Json::parse(line, nullptr, false);
  const auto time = number_member(document, "time_ms");
  const auto stream = text_member(document, "stream");
  auto text = text_member(document, "text");
  if (!time || !stream || !text || (*stream != "stdout" && *stream != "stderr")) {
    return std::nullopt;
  }
  return LogLine{*time, *stream == "stdout" ? LogStream::kOutput : LogStream::kError,
                 std::move(*text)};
}

Result<std::optional<LogReader::File>> LogReader::open_file(const std::string& path) {
  // O_NONBLOCK: a FIFO that somebody put there is not waited for.
  File file;
  file.fd = Fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file.fd) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return std::nullopt;
    }
    return fail_errno(errno, "cannot open the log '{}'", path);
  }
  struct stat status{};
  if (::fstat(file.fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return fail("the log '{}' is no regular file", path);
  }
  file.inode = status.st_ino;
  file.size = static_cast<std::uint64_t>(status.st_size);
  file.position = file.size > kMaxFile ? file.size - kMaxFile : 0;
  return file;
}

Result<bool> LogReader::open(std::optional<std::uint64_t> last_lines) {
  // In this order: what is renamed in between is found twice, not never.
  auto current = open_file(path_);
  auto before = open_file(path_ + ".1");
  if (!current || !before) {
    return std::unexpected(current ? before.error() : current.error());
  }
  if (*current && *before && (*current)->inode == (*before)->inode) {
    before->reset();
  }
  if (!*current && !*before) {
    return false;
  }
  if (!*current) {
    current = std::exchange(*before, std::nullopt);
  }
  current_ = std::move(**current);
  before_ = std::move(*before);
  if (last_lines) {
    const auto in_current = find_last(current_, *last_lines);
    if (!in_current) {
      return std::unexpected(in_current.error());
    }
    if (before_ && *in_current < *last_lines) {
      const auto found = find_last(*before_, *last_lines - *in_current);
      if (!found) {
        return std::unexpected(found.error());
      }
    } else {
      before_.reset();
    }
  }
  return true;
}

// Sets the position to the first of the last `lines`, and gives how many there are from there on.
Result<std::uint64_t> LogReader::find_last(File& file, std::uint64_t lines) {
  const std::uint64_t start = file.position;
  std::uint64_t at = file.size;
  std::uint64_t found = 0;
  std::vector<char> piece(kPiece);
  while (at > start && found <= lines) {
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, at - start));
    at -= length;
    const auto got = read_at(file.fd.get(), std::span(piece).first(length), at);
    if (!got) {
      return std::unexpected(got.error());
    }
    for (std::size_t i = *got; i > 0 && found <= lines; --i) {
      if (piece[i - 1] == '\n' && ++found > lines) {
        file.position = at + i;
        return lines;
      }
    }
  }
  return found;
}

Result<void> LogReader::read(const Each& each) {
  const auto done = read_some(each, std::numeric_limits<std::uint64_t>::max());
  return done ? Result<void>() : std::unexpected(done.error());
}

Result<bool> LogReader::read_some(const Each& each, std::uint64_t bytes) {
  if (before_) {
    if (auto done = read_file(*before_, each, bytes); !done || !*done) {
      return done;
    }
    before_.reset();
    end_file();
  }
  while (true) {
    if (auto done = read_file(current_, each, bytes); !done || !*done) {
      return done;
    }
    auto now = open_file(path_);
    if (!now) {
      return std::unexpected(now.error());
    }
    if (!*now || (*now)->inode == current_.inode) {
      return true;
    }
    // It was renamed, and by now nobody writes to it any more. So was, perhaps, one after it.
    if (auto done = read_file(current_, each, bytes); !done || !*done) {
      return done;
    }
    end_file();
    auto renamed = open_file(path_ + ".1");
    const bool missed = renamed && *renamed && (*renamed)->inode != current_.inode &&
                        (*renamed)->inode != (*now)->inode;
    current_ = std::move(missed ? **renamed : **now);
  }
}

void LogReader::finish() {
  end_file();
}

// What has no end at the end of a file never gets one.
void LogReader::end_file() {
  if (too_long_ || !part_.empty()) {
    ++bad_lines_;
  }
  too_long_ = false;
  part_.clear();
}

// Whether that was all of it.
Result<bool> LogReader::read_file(File& file, const Each& each, std::uint64_t& budget) {
  std::vector<char> piece(kPiece);
  while (budget > 0) {
    const auto length = read_at(file.fd.get(), piece, file.position);
    if (!length) {
      return std::unexpected(length.error());
    }
    if (*length == 0) {
      return true;
    }
    file.position += *length;
    budget -= std::min<std::uint64_t>(budget, *length);
    if (auto taken = take({piece.data(), *length}, each); !taken) {
      return std::unexpected(taken.error());
    }
  }
  return false;
}

Result<void> LogReader::take(std::string_view bytes, const Each& each) {
  while (!bytes.empty()) {
    const std::size_t newline = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, newline);
    if (part_.size() + piece.size() > kMaxLine) {
      too_long_ = true;
      part_.clear();
    } else if (!too_long_) {
      part_ += piece;
    }
    if (newline == std::string_view::npos) {
      return {};
    }
    bytes.remove_prefix(newline + 1);
    const std::string line = std::exchange(part_, {});
    if (std::exchange(too_long_, false)) {
      ++bad_lines_;
    } else if (auto taken = take_line(line, each); !taken) {
      return taken;
    }
  }
  return {};
}

Result<void> LogReader::take_line(std::string_view line, const Each& each) {
  const auto parsed = parse_log_line(line);
  if (!parsed) {
    ++bad_lines_;
    return {};
  }
  return each(*parsed);
}

}  // namespace msb::sandbox
