// SPDX-License-Identifier: Apache-2.0
#include "protocol/frame_stream.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <thread>

#include "base/loop.hpp"
#include "protocol/msb_exec.h"

namespace msb::protocol {
namespace {

struct Connection {
  Connection() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    host = Fd(ends[0]);
    guest = Fd(ends[1]);
    auto created = Loop::create();
    REQUIRE(created);
    loop = std::move(*created);
  }
  void guest_says(std::span<const std::byte> bytes) const {
    REQUIRE(::write(guest.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  }
  Fd host, guest;
  std::unique_ptr<Loop> loop;
};

std::vector<std::byte> output_frame(std::string_view text) {
  return encode_frame(MSB_STDOUT, std::as_bytes(std::span(text)));
}

std::string text_of(const Frame& frame) {
  return {reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size()};
}

TEST_CASE("the greeting is skipped, frames follow, and the end is told") {
  Connection connection;
  std::string seen;
  bool clean = false;
  FrameStream stream(*connection.loop, std::move(connection.host), true,
                     {.frame =
                          [&](const Frame& frame) {
                            seen += text_of(frame);
                            return true;
                          },
                      .closed =
                          [&](const std::optional<Error>& error) {
                            clean = !error;
                            connection.loop->stop();
                          },
                      .sent = nullptr});
  stream.start();
  connection.guest_says(std::as_bytes(std::span(std::string_view("OK 10737"))));
  connection.guest_says(std::as_bytes(std::span(std::string_view("41824\n"))));
  connection.guest_says(output_frame("hello "));
  connection.guest_says(output_frame("world"));
  connection.guest.reset();
  REQUIRE(connection.loop->run());
  CHECK(seen == "hello world");
  CHECK(clean);
  connection.loop->drain();
}

TEST_CASE("a paused stream delivers nothing until it is resumed") {
  Connection connection;
  std::string seen;
  FrameStream stream(*connection.loop, std::move(connection.host), false,
                     {.frame =
                          [&](const Frame& frame) {
                            seen += text_of(frame);
                            connection.loop->stop();
                            return false;
                          },
                      .closed = [&](const std::optional<Error>&) { connection.loop->stop(); },
                      .sent = nullptr});
  stream.start();
  connection.guest_says(output_frame("a"));
  connection.guest_says(output_frame("b"));
  REQUIRE(connection.loop->run());
  CHECK(seen == "a");
  stream.resume();
  if (seen == "a") {
    REQUIRE(connection.loop->run());
  }
  CHECK(seen == "ab");
  stream.close();
  connection.loop->drain();
}

TEST_CASE("garbage ends the stream with an error") {
  Connection connection;
  std::string message;
  FrameStream stream(*connection.loop, std::move(connection.host), false,
                     {.frame = [](const Frame&) { return true; },
                      .closed =
                          [&](const std::optional<Error>& error) {
                            message = error ? error->message : "";
                            connection.loop->stop();
                          },
                      .sent = nullptr});
  stream.start();
  connection.guest_says(std::as_bytes(std::span(std::string_view("GET / HTTP/1.1\r\n"))));
  REQUIRE(connection.loop->run());
  CHECK(message.find("which the exec protocol does not have") != std::string::npos);
  connection.loop->drain();
}

TEST_CASE("much that is sent arrives whole and in order, and `sent` comes when all is out") {
  Connection connection;
  std::size_t sent_calls = 0;
  FrameStream stream(*connection.loop, std::move(connection.host), false,
                     {.frame = [](const Frame&) { return true; },
                      .closed = [&](const std::optional<Error>&) { connection.loop->stop(); },
                      .sent = [&] { ++sent_calls; }});
  std::string received;
  std::thread reader([&] {
    char buffer[10000];
    while (received.size() < 100 * (sizeof(msb_frame_header) + 50000)) {
      const ssize_t size = ::read(connection.guest.get(), buffer, sizeof buffer);
      if (size <= 0) {
        break;
      }
      received.append(buffer, static_cast<std::size_t>(size));
    }
    connection.guest.reset();
  });
  stream.start();
  for (int i = 0; i < 100; ++i) {
    const std::string text(50000, static_cast<char>('a' + i % 26));
    stream.send(encode_frame(MSB_STDIN, std::as_bytes(std::span(text))));
  }
  REQUIRE(connection.loop->run());
  reader.join();
  CHECK(received.size() == 100 * (sizeof(msb_frame_header) + 50000));
  CHECK(received.back() == 'a' + 99 % 26);
  CHECK(sent_calls == 1);
  CHECK(stream.unsent() == 0);
  connection.loop->drain();
}

}  // namespace
}  // namespace msb::protocol
