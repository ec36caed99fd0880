// SPDX-License-Identifier: Apache-2.0
#include "server/request_log.hpp"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>

#include "server/client_spec.hpp"

namespace msb::server {

namespace {

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
  [[maybe_unused]] const ssize_t written = ::write(fd_, lines_.data(), lines_.size());
  lines_.clear();
}

}  // namespace msb::server
