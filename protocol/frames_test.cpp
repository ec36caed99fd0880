// SPDX-License-Identifier: Apache-2.0
#include "protocol/frames.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/msb_exec.h"
#include "protocol/quote.hpp"
#include "protocol/testing/wire.hpp"

namespace msb::protocol {
namespace {

using testing::bytes_of;
using testing::text_of;

constexpr Connection kAll[] = {Connection::kControl, Connection::kProcess, Connection::kRequest,
                               Connection::kFiles, Connection::kTunnel};

// Whether a header is let through, on what connection.
bool allows(Connection connection, std::uint32_t type, std::uint32_t length) {
  const msb_frame_header header{type, length};
  FrameDecoder decoder(connection);
  decoder.feed(std::as_bytes(std::span(&header, 1)));
  return decoder.next().has_value();
}

TEST_CASE("frames come out as they went in, wherever the stream is cut") {
  std::vector<std::byte> stream;
  for (const std::string_view text : {"one", "2", "three"}) {
    const auto frame = encode_frame(MSB_STDOUT, bytes_of(text));
    stream.insert(stream.end(), frame.begin(), frame.end());
  }
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    FrameDecoder decoder(Connection::kProcess);
    std::vector<std::string> texts;
    for (const auto part : {std::span(stream).first(cut), std::span(stream).subspan(cut)}) {
      decoder.feed(part);
      for (auto frame = decoder.next(); frame && *frame; frame = decoder.next()) {
        CHECK((*frame)->type == MSB_STDOUT);
        texts.push_back(text_of((*frame)->payload));
      }
    }
    CHECK(texts == std::vector<std::string>{"one", "2", "three"});
    CHECK(decoder.at_boundary());
  }
}

TEST_CASE("what is read in place comes out as what is fed, up to the largest frames") {
  std::mt19937 random(2);
  std::vector<std::byte> stream;
  std::vector<std::size_t> sizes;
  for (int i = 0; i < 60; ++i) {
    sizes.push_back(i % 3 == 0 ? MSB_MAX_DATA : random() % 5000 + 1);
    const auto frame =
        encode_frame(MSB_STDOUT, std::vector<std::byte>(sizes.back(), static_cast<std::byte>(i)));
    stream.insert(stream.end(), frame.begin(), frame.end());
  }
  FrameDecoder decoder(Connection::kProcess);
  std::size_t next = 0;
  for (std::span<const std::byte> rest(stream); !rest.empty();) {
    const std::span<std::byte> space = decoder.space();
    REQUIRE(space.size() >= 32U << 10);
    const std::size_t most = std::min(space.size(), rest.size());
    const std::size_t count = random() % 2 == 0 ? most : random() % most + 1;
    if (random() % 4 == 0) {
      decoder.feed(rest.first(count));
    } else {
      std::ranges::copy(rest.first(count), space.begin());
      decoder.filled(count);
    }
    rest = rest.subspan(count);
    auto frame = decoder.next();
    for (; frame && *frame; frame = decoder.next()) {
      REQUIRE((*frame)->payload.size() == sizes.at(next));
      const auto byte = static_cast<std::byte>(next);
      REQUIRE(std::ranges::count((*frame)->payload, byte) ==
              static_cast<std::ptrdiff_t>((*frame)->payload.size()));
      ++next;
    }
    REQUIRE(frame);
  }
  CHECK(next == sizes.size());
  CHECK(decoder.at_boundary());
}

TEST_CASE("each connection takes the types that the protocol gives it and no other") {
  const std::set<std::pair<std::uint32_t, Connection>> allowed = {
      {MSB_HELLO, Connection::kControl},    {MSB_FAILED, Connection::kControl},
      {MSB_BYE, Connection::kControl},      {MSB_STARTED, Connection::kProcess},
      {MSB_REFUSED, Connection::kProcess},  {MSB_REFUSED, Connection::kRequest},
      {MSB_REFUSED, Connection::kFiles},    {MSB_REFUSED, Connection::kTunnel},
      {MSB_STDOUT, Connection::kProcess},   {MSB_STDERR, Connection::kProcess},
      {MSB_EXITED, Connection::kProcess},   {MSB_EXITED, Connection::kRequest},
      {MSB_CHANNEL, Connection::kProcess},  {MSB_ATTACHED, Connection::kProcess},
      {MSB_DETACHED, Connection::kProcess}, {MSB_DONE, Connection::kRequest},
      {MSB_DONE, Connection::kFiles},       {MSB_DONE, Connection::kTunnel},
      {MSB_PONG, Connection::kRequest},     {MSB_PROCESS, Connection::kRequest},
      {MSB_MEASURED, Connection::kRequest}, {MSB_LISTENER, Connection::kRequest},
      {MSB_OWNER, Connection::kRequest},    {MSB_FILE_DATA, Connection::kFiles},
      {MSB_FILE_ENTRY, Connection::kFiles}};
  for (const Connection connection : kAll) {
    for (std::uint32_t type = 0; type < 300; ++type) {
      bool any = false;
      for (std::uint32_t length = 0; length <= 256 && !any; ++length) {
        any = allows(connection, type, length);
      }
      CAPTURE(type);
      CHECK(any == allowed.contains({type, connection}));
    }
    CHECK_FALSE(allows(connection, ~0U, 0));
  }
}

TEST_CASE("a length outside its type's bounds is refused before the payload comes") {
  const auto bounds = [](Connection connection, std::uint32_t type, std::uint32_t min,
                         std::uint32_t max) {
    CAPTURE(type);
    CHECK(allows(connection, type, min));
    CHECK(allows(connection, type, max));
    CHECK_FALSE(allows(connection, type, max + 1));
    CHECK_FALSE(allows(connection, type, ~0U));
    if (min > 0) {
      CHECK_FALSE(allows(connection, type, min - 1));
    }
  };
  bounds(Connection::kControl, MSB_HELLO, 16, 16);
  bounds(Connection::kControl, MSB_FAILED, 8, 1024);
  bounds(Connection::kControl, MSB_BYE, 4, 4);
  bounds(Connection::kProcess, MSB_STARTED, 8, 8);
  bounds(Connection::kProcess, MSB_STDOUT, 1, 65'536);
  bounds(Connection::kProcess, MSB_STDERR, 1, 65'536);
  bounds(Connection::kProcess, MSB_CHANNEL, 1, 65'536);
  bounds(Connection::kProcess, MSB_EXITED, 64, 1024);
  bounds(Connection::kProcess, MSB_ATTACHED, 56, 56);
  bounds(Connection::kProcess, MSB_DETACHED, 0, 0);
  bounds(Connection::kRequest, MSB_DONE, 8, 8);
  bounds(Connection::kRequest, MSB_PONG, 0, 1024);
  bounds(Connection::kRequest, MSB_PROCESS, 82, 1024);
  bounds(Connection::kRequest, MSB_MEASURED, 144, 144);
  bounds(Connection::kRequest, MSB_LISTENER, 24, 24);
  bounds(Connection::kRequest, MSB_OWNER, 8, 23);
  bounds(Connection::kFiles, MSB_FILE_DATA, 1, 65'536);
  bounds(Connection::kFiles, MSB_FILE_ENTRY, 66, 16'384);
}

TEST_CASE("a refused stream stays refused") {
  FrameDecoder decoder(Connection::kProcess);
  decoder.feed(encode_frame(MSB_STDIN, {}));
  CHECK_FALSE(decoder.next());
  decoder.feed(encode_frame(MSB_STDOUT, bytes_of("x")));
  CHECK_FALSE(decoder.next());
}

TEST_CASE("random bytes give no frame that is larger than they are") {
  std::mt19937 random(1);
  for (int round = 0; round < 1000; ++round) {
    std::vector<std::byte> bytes(random() % 64);
    for (std::byte& byte : bytes) {
      byte = static_cast<std::byte>(random());
    }
    FrameDecoder decoder(kAll[random() % 5]);
    decoder.feed(bytes);
    for (auto frame = decoder.next(); frame && *frame; frame = decoder.next()) {
      CHECK((*frame)->payload.size() <= bytes.size());
    }
  }
}

TEST_CASE("a guest's text is one printable line, whatever it holds") {
  CHECK(quote("plain text ~") == "plain text ~");
  CHECK(quote(std::string_view("\x1b[2J\r\n\0\x7f\xff", 9)) == "?[2J?????");
  CHECK(quote(std::string(1000, 'x')).size() == 300);
}

}  // namespace
}  // namespace msb::protocol
