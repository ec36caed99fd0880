// SPDX-License-Identifier: Apache-2.0
#include "server/request_log.hpp"

#include <unistd.h>

#include "server/client_spec.hpp"

namespace msb::server {

namespace {

std::string now() {
  return format_time(std::chrono::duration_cast<std::chrono::milliseconds>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count());
}

void write_line(int fd, const Json& line) {
  if (fd >= 0) {
    const std::string text = to_text(line) + "\n";
    // In one piece, so that lines of several processes do not mix.
    [[maybe_unused]] const ssize_t written = ::write(fd, text.data(), text.size());
  }
}

}  // namespace

void RequestLog::write(const LoggedRequest& request) const {
  if (fd_ < 0) {
    return;
  }
  constexpr double kHundredths = 100;
  write_line(
      fd_,
      {{"time", now()},
       {"level", "info"},
       {"request", request.id},
       {"remote", request.remote},
       {"key", request.key},
       {"method", request.method},
       {"path", request.path},
       {"status", request.status},
       {"received", request.received},
       {"sent", request.sent},
       {"ms", static_cast<double>(static_cast<std::int64_t>(request.took.count() * kHundredths)) /
                  kHundredths}});
}

void RequestLog::write(std::string_view level, std::string_view message,
                       std::string_view request_id) const {
  Json line = {{"time", now()}, {"level", level}, {"message", message}};
  if (!request_id.empty()) {
    line["request"] = request_id;
  }
  write_line(fd_, line);
}

}  // namespace msb::server
