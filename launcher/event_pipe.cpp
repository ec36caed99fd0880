// SPDX-License-Identifier: Apache-2.0
#include "launcher/event_pipe.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <utility>

namespace msb::launcher {

Result<EventPipe> EventPipe::take(int fd) {
  if (fd <= STDERR_FILENO) {
    return fail("--events {} is a standard stream; give it a pipe of its own", fd);
  }
  struct stat status{};
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fstat(fd, &status) != 0) {
    return fail("--events {} is no open descriptor", fd);
  }
  if (!S_ISFIFO(status.st_mode) || (flags & O_ACCMODE) != O_WRONLY) {
    return fail("--events {} is not the writing end of a pipe", fd);
  }
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail_errno(errno, "cannot set the mode of --events {}", fd);
  }
  return EventPipe(Fd(fd));
}

void EventPipe::tell(std::string_view event, const nlohmann::ordered_json& details) {
  using Json = nlohmann::ordered_json;
  Json line{{"event", event}};
  line.update(details);
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (broken_) {
    return;
  }
  ssize_t written = 0;
  do {
    written = ::write(pipe_.get(), text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  if (written > 0 && written < static_cast<ssize_t>(text.size())) {
    broken_ = true;  // what followed half a line could not be told from its rest
  }
}

}  // namespace msb::launcher
