// SPDX-License-Identifier: Apache-2.0
#include "server/request_log.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <utility>

#include "sandbox/files.hpp"
#include "server/client_spec.hpp"
#include "server/presence.hpp"

namespace msb::server {

namespace {

constexpr off_t kMaxLog = off_t{16} << 20;

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string quoted(std::string_view text) {
  return to_text(Json(text));
}

// Of what a client sent: mostly there is nothing to be escaped.
std::string quoted_quickly(std::string_view text) {
  const bool plain = std::ranges::all_of(
      text, [](char c) { return c >= ' ' && c < 0x7f && c != '"' && c != '\\'; });
  return plain ? fmt::format("\"{}\"", text) : quoted(text);
}

}  // namespace

Result<Fd> open_server_log(const std::string& home) {
  const std::string folder = server_folder(home);
  if (auto made = sandbox::make_directory(folder); !made) {
    return std::unexpected(made.error());
  }
  const std::string path = folder + "/log";
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0 && status.st_size > kMaxLog) {
    ::rename(path.c_str(), (path + ".1").c_str());
  }
  Fd log(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!log) {
    return fail_errno(errno, "cannot write the server's log '{}'", path);
  }
  return log;
}

RequestLog::RequestLog(boost::asio::io_context& io, int fd, std::string home)
    : io_(io), fd_(fd), home_(std::move(home)) {
  struct stat status{};
  if (::fstat(fd_, &status) == 0 && S_ISREG(status.st_mode)) {
    size_ = static_cast<std::uint64_t>(status.st_size);
  }
}

void RequestLog::write(const LoggedRequest& request) {
  add(fmt::format(
      R"({{"time":"{}","level":"info","request":"{}","remote":"{}","key":"{}","method":{},"path":{},"status":{},"received":{},"sent":{},"ms":{:.2f}}})",
      format_time(now_ms()), request.id, request.remote, request.key,
      quoted_quickly(request.method), quoted_quickly(request.path), request.status,
      request.received, request.sent, request.took.count()));
}

void RequestLog::write(std::string_view level, std::string_view message,
                       std::string_view request_id) {
  const std::string request =
      request_id.empty() ? "" : fmt::format(R"(,"request":"{}")", request_id);
  add(fmt::format(R"({{"time":"{}","level":"{}","message":{}{}}})", format_time(now_ms()), level,
                  quoted(message), request));
}

void RequestLog::add(const std::string& line) {
  if (lines_.empty()) {
    asio::post(io_, [this] { flush(); });
  }
  lines_ += line;
  lines_ += '\n';
}

void RequestLog::flush() {
  // In one piece, so that lines of several processes do not mix.
  const ssize_t written = ::write(fd_, lines_.data(), lines_.size());
  lines_.clear();
  size_ += written > 0 ? static_cast<std::uint64_t>(written) : 0;
  if (size_ > std::uint64_t{kMaxLog}) {
    begin_anew();
  }
}

void RequestLog::begin_anew() {
  size_ = 0;
  struct stat own{};
  struct stat there{};
  const std::string path = server_folder(home_) + "/log";
  if (home_.empty() || ::fstat(fd_, &own) != 0 || ::lstat(path.c_str(), &there) != 0 ||
      own.st_dev != there.st_dev || own.st_ino != there.st_ino) {
    return;  // somebody else's file
  }
  if (const auto log = open_server_log(home_)) {
    ::dup2(log->get(), fd_);
  }
}

}  // namespace msb::server
