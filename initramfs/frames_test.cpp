// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/frames.h"

#include "initramfs/buffer.h"
}

#include <doctest/doctest.h>

#include <cstring>
#include <string>

TEST_CASE("frame_header_is_read_wherever_the_stream_is_cut") {
  uint8_t frame[FRAME_HEADER_SIZE + 3];
  REQUIRE(frame_write(frame, MSB_STDIN, "abc", 3) == sizeof frame);
  for (size_t cut = 0; cut <= sizeof frame; cut++) {
    frame_reader reader{};
    size_t taken = frame_take_header(&reader, frame, cut);
    CHECK(taken == (cut < FRAME_HEADER_SIZE ? cut : FRAME_HEADER_SIZE));
    CHECK(frame_header_is_complete(&reader) == (cut >= FRAME_HEADER_SIZE));
    taken += frame_take_header(&reader, frame + taken, sizeof frame - taken);
    REQUIRE(frame_header_is_complete(&reader));
    CHECK(taken == FRAME_HEADER_SIZE);
    CHECK(reader.type == MSB_STDIN);
    CHECK(reader.left == 3);
  }
}

TEST_CASE("frame_header_is_little_endian") {
  uint8_t frame[FRAME_HEADER_SIZE];
  frame_write_header(frame, 0x01020304, 0x0a0b0c0d);
  CHECK(std::memcmp(frame, "\x04\x03\x02\x01\x0d\x0c\x0b\x0a", 8) == 0);
}

TEST_CASE("frame_after_a_frame_starts_with_a_fresh_header") {
  uint8_t frame[FRAME_HEADER_SIZE];
  frame_reader reader{};
  frame_write_header(frame, MSB_STDIN, 0);
  frame_take_header(&reader, frame, sizeof frame);
  CHECK(frame_take_header(&reader, frame, sizeof frame) == 0);
  frame_end(&reader);
  frame_write_header(frame, MSB_SHUTDOWN, 0);
  CHECK(frame_take_header(&reader, frame, sizeof frame) == sizeof frame);
  CHECK(reader.type == MSB_SHUTDOWN);
}

TEST_CASE("frame_is_acceptable_only_as_the_host_sends_it") {
  struct Type {
    uint32_t type;
    uint32_t least;
    uint32_t most;
  };
  // The table of docs/exec-protocol.md.
  const Type types[] = {{MSB_SHUTDOWN, 8, 8},
                        {MSB_START, 0, MSB_MAX_START},
                        {MSB_ATTACH, 32, 32},
                        {MSB_STDIN, 0, MSB_MAX_DATA},
                        {MSB_CHANNEL_INPUT, 0, MSB_MAX_DATA},
                        {MSB_PING, 0, 1024},
                        {MSB_SIGNAL, 12, 12},
                        {MSB_RESIZE, 8, 8},
                        {MSB_LIST, 0, 0},
                        {MSB_WAIT, 4, 4},
                        {MSB_FORGET, 4, 4},
                        {MSB_METRICS, 0, 0},
                        {MSB_LISTENERS, 0, 0},
                        {MSB_SET_CLOCK, 8, 8},
                        {MSB_ADD_ENTROPY, 1, 512},
                        {MSB_SET_NAMES, 0, 16384},
                        {MSB_SHARE, 0, 16384},
                        {MSB_UNSHARE, 0, 16384},
                        {MSB_SOCKET_OWNER, 32, 32},
                        {MSB_FILES, 0, 0},
                        {MSB_CONNECT, 8, 1024},
                        {MSB_FILE_STAT, 32, 16384},
                        {MSB_FILE_UNPACK, 32, 16384},
                        {MSB_FILE_DIFF, 32, 16384},
                        {MSB_FILE_DATA, 0, MSB_MAX_DATA}};
  for (const Type& each : types) {
    CAPTURE(each.type);
    CHECK(frame_is_acceptable(each.type, each.least));
    CHECK(frame_is_acceptable(each.type, each.most));
    if (each.least > 0) CHECK_FALSE(frame_is_acceptable(each.type, each.least - 1));
    CHECK_FALSE(frame_is_acceptable(each.type, each.most + 1));
    CHECK_FALSE(frame_is_acceptable(each.type, UINT32_MAX));
  }
  for (uint32_t type : {0u, unsigned{MSB_HELLO}, unsigned{MSB_FAILED}, unsigned{MSB_BYE}, 18u, 36u,
                        unsigned{MSB_STARTED}, unsigned{MSB_STDOUT}, unsigned{MSB_EXITED},
                        unsigned{MSB_DETACHED}, 78u, unsigned{MSB_DONE}, unsigned{MSB_PONG}, 114u,
                        127u, unsigned{MSB_FILE_ENTRY}, 145u, UINT32_MAX}) {
    CAPTURE(type);
    CHECK_FALSE(frame_is_acceptable(type, 0));
    CHECK_FALSE(frame_is_acceptable(type, 8));
    CHECK_FALSE(frame_is_acceptable(type, 32));
  }
}

TEST_CASE("buffer_gives_back_what_was_put_in_and_holds_nothing_when_empty") {
  buffer waiting{};
  std::string expected;
  for (int i = 0; i < 1000; i++) {
    std::string piece(static_cast<size_t>(i % 7), static_cast<char>('a' + i % 26));
    REQUIRE(buffer_append(&waiting, piece.data(), piece.size()));
    expected += piece;
    if (i % 3 == 0 && !expected.empty()) {
      CHECK(waiting.data[waiting.start] == static_cast<uint8_t>(expected[0]));
      buffer_consume(&waiting, 1);
      expected.erase(0, 1);
    }
  }
  REQUIRE(buffer_length(&waiting) == expected.size());
  CHECK(std::memcmp(waiting.data + waiting.start, expected.data(), expected.size()) == 0);
  buffer_consume(&waiting, expected.size());
  CHECK(waiting.data == nullptr);
  CHECK(buffer_length(&waiting) == 0);
}
