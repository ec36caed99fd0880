// SPDX-License-Identifier: Apache-2.0
#include "protocol/frame_stream.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "protocol/msb_exec.h"
#include "protocol/testing/wire.hpp"

namespace msb::protocol {
namespace {

using testing::Wire;

std::string text_of(const Frame& frame) {
  return {reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size()};
}

TEST_CASE("the greeting is skipped, frames follow, and the end is told") {
  Wire connection;
  std::string seen;
  bool clean = false;
  FrameStream stream(*connection.loop, std::move(connection.host), Connection::kProcess,
                     FrameStream::Greeting::kExpected,
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
  connection.say("OK 10737");
  connection.say("41824\n");
  connection.say(testing::frame_of(MSB_STDOUT, "hello "));
  connection.say(testing::frame_of(MSB_STDOUT, "world"));
  connection.guest.reset();
  REQUIRE(connection.loop->run());
  CHECK(seen == "hello world");
  CHECK(clean);
  connection.loop->drain();
}

TEST_CASE("an end is an end, also when the other side had something left to read") {
  Wire connection;
  std::optional<bool> clean;
  FrameStream stream(*connection.loop, std::move(connection.host), Connection::kProcess,
                     FrameStream::Greeting::kNone,
                     {.frame = [](const Frame&) { return true; },
                      .closed = [&](const std::optional<Error>& error) { clean = !error; },
                      .sent = nullptr});
  stream.send(encode_frame(MSB_STDIN, {}));
  // It is there, and stays unread: closing the socket resets it.
  REQUIRE(connection.run_until([&] { return stream.unsent() == 0; }));
  stream.start();
  connection.guest.reset();
  REQUIRE(connection.run_until([&] { return clean.has_value(); }));
  CHECK(*clean);
  connection.loop->drain();
}

TEST_CASE("a paused stream delivers nothing until it is resumed") {
  Wire connection;
  std::string seen;
  FrameStream stream(*connection.loop, std::move(connection.host), Connection::kProcess,
                     FrameStream::Greeting::kNone,
                     {.frame =
                          [&](const Frame& frame) {
                            seen += text_of(frame);
                            connection.loop->stop();
                            return false;
                          },
                      .closed = [&](const std::optional<Error>&) { connection.loop->stop(); },
                      .sent = nullptr});
  stream.start();
  connection.say(testing::frame_of(MSB_STDOUT, "a"));
  connection.say(testing::frame_of(MSB_STDOUT, "b"));
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
  Wire connection;
  std::string message;
  FrameStream stream(*connection.loop, std::move(connection.host), Connection::kProcess,
                     FrameStream::Greeting::kNone,
                     {.frame = [](const Frame&) { return true; },
                      .closed =
                          [&](const std::optional<Error>& error) {
                            message = error ? error->message : "";
                            connection.loop->stop();
                          },
                      .sent = nullptr});
  stream.start();
  connection.say("GET / HTTP/1.1\r\n");
  REQUIRE(connection.loop->run());
  CHECK(message.find("has no place on this connection") != std::string::npos);
  connection.loop->drain();
}

TEST_CASE("much that is sent arrives whole and in order, and `sent` comes when all is out") {
  Wire connection;
  std::size_t sent_calls = 0;
  FrameStream stream(*connection.loop, std::move(connection.host), Connection::kProcess,
                     FrameStream::Greeting::kNone,
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
