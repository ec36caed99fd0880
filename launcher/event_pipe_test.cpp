// SPDX-License-Identifier: Apache-2.0
#include "launcher/event_pipe.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <csignal>
#include <string>

namespace msb::launcher {
namespace {

struct Pipe {
  Pipe() {
    ::signal(SIGPIPE, SIG_IGN);
    int ends[2];
    REQUIRE(::pipe2(ends, 0) == 0);
    reader = Fd(ends[0]);
    writer = Fd(ends[1]);
  }
  [[nodiscard]] std::string read() const {
    std::string text(1 << 20, '\0');
    const ssize_t size = ::read(reader.get(), text.data(), text.size());
    text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
    return text;
  }
  Fd reader, writer;
};

TEST_CASE("an event is a line that begins with its name") {
  Pipe pipe;
  auto events = EventPipe::take(pipe.writer.release());
  REQUIRE(events);
  CHECK((::fcntl(events->get(), F_GETFD) & FD_CLOEXEC) != 0);
  events->tell("detached", nlohmann::ordered_json::object());
  events->tell("ended", {{"status", 3}, {"message", "one\ntwo \xff"}});
  CHECK(pipe.read() ==
        "{\"event\":\"detached\"}\n"
        "{\"event\":\"ended\",\"status\":3,\"message\":\"one\\ntwo \xef\xbf\xbd\"}\n");
}

TEST_CASE("a reader that does not read, or is gone, does not hold up the sandbox") {
  Pipe pipe;
  auto events = EventPipe::take(pipe.writer.release());
  REQUIRE(events);
  const std::string large(30'000, 'x');
  for (int i = 0; i < 100; ++i) {
    events->tell("ended", {{"message", large}});
  }
  // What came is whole lines, but for the last one.
  const std::string came = pipe.read();
  CHECK(came.starts_with("{\"event\":\"ended\",\"message\":\"xxx"));
  pipe.reader.reset();
  events->tell("ended", nlohmann::ordered_json::object());
}

TEST_CASE("what is not the writing end of a pipe is refused") {
  Pipe pipe;
  CHECK_FALSE(EventPipe::take(1));
  CHECK_FALSE(EventPipe::take(-1));
  CHECK_FALSE(EventPipe::take(1'000'000));
  CHECK_FALSE(EventPipe::take(pipe.reader.get()));
  const Fd null(::open("/dev/null", O_WRONLY));
  CHECK_FALSE(EventPipe::take(null.get()));
  CHECK((::fcntl(null.get(), F_GETFD) & FD_CLOEXEC) == 0);
}

}  // namespace
}  // namespace msb::launcher
