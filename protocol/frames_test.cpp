// SPDX-License-Identifier: Apache-2.0
#include "protocol/frames.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <string_view>

#include "protocol/msb_exec.h"

namespace msb::protocol {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_CASE("frames come out as they went in, wherever the stream is cut") {
  std::vector<std::byte> stream;
  for (const std::string_view text : {"one", "", "three"}) {
    const auto frame = encode_frame(MSB_STDOUT, bytes_of(text));
    stream.insert(stream.end(), frame.begin(), frame.end());
  }
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    FrameDecoder decoder;
    std::vector<std::string> texts;
    for (const auto part : {std::span(stream).first(cut), std::span(stream).subspan(cut)}) {
      decoder.feed(part);
      for (auto frame = decoder.next(); frame && *frame; frame = decoder.next()) {
        CHECK((*frame)->type == MSB_STDOUT);
        texts.push_back(text_of((*frame)->payload));
      }
    }
    CHECK(texts == std::vector<std::string>{"one", "", "three"});
  }
}

TEST_CASE("types that a guest does not send are refused") {
  for (const std::uint32_t type :
       {0u, 4u, static_cast<unsigned>(MSB_SIGNAL), static_cast<unsigned>(MSB_START),
        static_cast<unsigned>(MSB_STDIN), 53u, ~0u}) {
    FrameDecoder decoder;
    decoder.feed(encode_frame(type, {}));
    CHECK_FALSE(decoder.next());
    CHECK_FALSE(decoder.next());
  }
}

TEST_CASE("a length beyond the limit of its type is refused before the payload comes") {
  const auto refused = [](std::uint32_t type, std::uint32_t length) {
    const msb_frame_header header{type, length};
    FrameDecoder decoder;
    decoder.feed(std::as_bytes(std::span(&header, 1)));
    return !decoder.next().has_value();
  };
  CHECK_FALSE(refused(MSB_STDOUT, MSB_MAX_DATA));
  CHECK(refused(MSB_STDOUT, MSB_MAX_DATA + 1));
  CHECK_FALSE(refused(MSB_EXITED, MSB_MAX_SMALL));
  CHECK(refused(MSB_EXITED, MSB_MAX_SMALL + 1));
  CHECK(refused(MSB_HELLO, ~0u));
}

TEST_CASE("random bytes never make the decoder keep more than one frame") {
  std::mt19937 random(1);
  for (int round = 0; round < 1000; ++round) {
    std::vector<std::byte> bytes(random() % 64);
    for (std::byte& byte : bytes) {
      byte = static_cast<std::byte>(random());
    }
    FrameDecoder decoder;
    decoder.feed(bytes);
    for (auto frame = decoder.next(); frame && *frame; frame = decoder.next()) {
      CHECK((*frame)->payload.size() <= bytes.size());
    }
  }
}

TEST_CASE("a payload shorter than its structure gives nothing") {
  const auto frame = encode_frame(MSB_EXITED, bytes_of("short"));
  FrameDecoder decoder;
  decoder.feed(frame);
  const auto decoded = decoder.next();
  REQUIRE(decoded);
  REQUIRE(*decoded);
  CHECK_FALSE(payload_as<msb_exited>(**decoded));
}

TEST_CASE("START carries directory, arguments and environment in order") {
  ProcessSpec spec;
  spec.arguments = {"echo", "", "two words"};
  spec.environment = {"A=1"};
  spec.directory = "/work";
  spec.user = 1000;
  spec.group = 100;
  const auto frame = encode_start(spec);
  REQUIRE(frame);
  const std::string text = text_of(*frame);
  msb_frame_header header{};
  msb_start start{};
  std::memcpy(&header, text.data(), sizeof header);
  std::memcpy(&start, text.data() + sizeof header, sizeof start);
  CHECK(header.type == MSB_START);
  CHECK(header.length == text.size() - sizeof header);
  CHECK(start.user == 1000);
  CHECK(start.group == 100);
  CHECK(start.arguments == 3);
  CHECK(start.variables == 1);
  CHECK(text.substr(sizeof header + sizeof start) ==
        std::string("/work\0echo\0\0two words\0A=1\0", 26));
}

TEST_CASE("a START that the guest would refuse is refused here") {
  ProcessSpec good;
  good.arguments = {"true"};
  CHECK(encode_start(good));
  ProcessSpec spec = good;
  spec.arguments.clear();
  CHECK_FALSE(encode_start(spec));
  spec = good;
  spec.arguments.emplace_back("a\0b", 3);
  CHECK_FALSE(encode_start(spec));
  spec = good;
  spec.directory = "relative";
  CHECK_FALSE(encode_start(spec));
  spec = good;
  spec.environment.emplace_back(MSB_MAX_START, 'x');
  CHECK_FALSE(encode_start(spec));
}

}  // namespace
}  // namespace msb::protocol
