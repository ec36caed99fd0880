// SPDX-License-Identifier: Apache-2.0
#include "protocol/host_frames.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <string_view>

#include "protocol/testing/wire.hpp"

namespace msb::protocol {
namespace {

using namespace std::string_literals;
using testing::bytes_of;
using testing::text_of;

std::string unhex(std::string_view text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] == ' ') {
      ++i;
      continue;
    }
    bytes += static_cast<char>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16));
    i += 2;
  }
  return bytes;
}

ProcessSpec valid() {
  ProcessSpec spec;
  spec.arguments = {"true"};
  return spec;
}

TEST_CASE("START is byte by byte what the protocol's example says") {
  ProcessSpec spec;
  spec.arguments = {"cat", "-"};
  spec.environment = {"A=1"};
  spec.create_directory = false;
  const auto frame = encode_start(spec);
  REQUIRE(frame);
  CHECK(text_of(*frame) == unhex("20 00 00 00 36 00 00 00"
                                 "00 00 00 00 02 00 00 00 01 00 00 00"
                                 "00 00 00 00 00 00 00 00 12 00 00 00"
                                 "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
                                 "00 00 2f 00"
                                 "63 61 74 00 2d 00"
                                 "41 3d 31 00"));
}

TEST_CASE("START carries every field where the protocol has it") {
  ProcessSpec spec;
  spec.arguments = {"echo", "", "two words"};
  spec.environment = {"A=1", "B="};
  spec.directory = "/work";
  spec.user = "me:us";
  spec.groups = {"audio", "44"};
  spec.label = "a label";
  spec.limits = {{7, 10, 20}};
  spec.umask = 077;
  spec.timeout_ms = 1500;
  spec.keep = 4096;
  spec.terminal = TerminalSize{25, 132};
  spec.channel = true;
  const auto frame = encode_start(spec);
  REQUIRE(frame);
  const std::string text = text_of(*frame).substr(sizeof(msb_frame_header));
  msb_start start{};
  msb_limit limit{};
  std::memcpy(&start, text.data(), sizeof start);
  std::memcpy(&limit, text.data() + sizeof start, sizeof limit);
  CHECK(start.flags ==
        (MSB_START_CREATE_DIRECTORY | MSB_START_KEEP | MSB_START_TERMINAL | MSB_START_CHANNEL));
  CHECK(start.arguments == 3);
  CHECK(start.variables == 2);
  CHECK(start.groups == 2);
  CHECK(start.limits == 1);
  CHECK(start.umask == 077);
  CHECK(start.timeout_ms == 1500);
  CHECK(start.keep == 4096);
  CHECK(start.rows == 25);
  CHECK(start.columns == 132);
  CHECK(limit.resource == 7);
  CHECK(limit.soft == 10);
  CHECK(limit.hard == 20);
  CHECK(text.substr(sizeof start + sizeof limit) ==
        "a label\0me:us\0/work\0audio\0"
        "44\0echo\0\0two words\0A=1\0B=\0"s);
}

TEST_CASE("a process without standard input says so") {
  ProcessSpec spec = valid();
  spec.input = false;
  const auto frame = encode_start(spec);
  REQUIRE(frame);
  msb_start start{};
  std::memcpy(&start, frame->data() + sizeof(msb_frame_header), sizeof start);
  CHECK((start.flags & MSB_START_NO_STDIN) != 0);
}

TEST_CASE("a START that the agent would not take is refused here") {
  CHECK(encode_start(valid()));
  const auto refused = [](void (*change)(ProcessSpec&)) {
    ProcessSpec spec = valid();
    change(spec);
    return !encode_start(spec);
  };
  CHECK(refused([](ProcessSpec& spec) { spec.arguments.clear(); }));
  CHECK(refused([](ProcessSpec& spec) { spec.arguments = {"a\0b"s}; }));
  CHECK(refused([](ProcessSpec& spec) { spec.label = "\0"s; }));
  CHECK(refused([](ProcessSpec& spec) { spec.user = "\0"s; }));
  CHECK(refused([](ProcessSpec& spec) { spec.groups = {"\0"s}; }));
  CHECK(refused([](ProcessSpec& spec) { spec.directory = "relative"; }));
  CHECK(refused([](ProcessSpec& spec) { spec.directory = "/\0"s; }));
  CHECK(refused([](ProcessSpec& spec) { spec.environment = {"NAME"}; }));
  CHECK(refused([](ProcessSpec& spec) { spec.environment = {"=x"}; }));
  CHECK(refused([](ProcessSpec& spec) { spec.groups.resize(65); }));
  CHECK(refused([](ProcessSpec& spec) { spec.limits.resize(17); }));
  CHECK(refused([](ProcessSpec& spec) { spec.limits = {{16, 0, 0}}; }));
  CHECK(refused([](ProcessSpec& spec) { spec.limits = {{0, 2, 1}}; }));
  CHECK(refused([](ProcessSpec& spec) { spec.umask = 01000; }));
  CHECK(refused([](ProcessSpec& spec) { spec.keep = MSB_KEEP_MAX + 1; }));
  CHECK(refused([](ProcessSpec& spec) {
    spec.terminal = TerminalSize{};
    spec.input = false;
  }));
  CHECK(refused([](ProcessSpec& spec) { spec.arguments.resize(262'145, ""); }));
  CHECK(refused([](ProcessSpec& spec) { spec.arguments.emplace_back(MSB_MAX_START, 'x'); }));
}

TEST_CASE("data is cut into frames that the agent takes, and no bytes are no frame") {
  FrameBytes frames;
  append_data(frames, MSB_STDIN, {});
  CHECK(frames.empty());
  const std::string text(2 * MSB_MAX_DATA + 1, 'x');
  append_data(frames, MSB_STDIN, bytes_of(text));
  CHECK(frames.size() == text.size() + 3 * sizeof(msb_frame_header));
  msb_frame_header header{};
  std::memcpy(&header, frames.data() + 2 * (sizeof header + MSB_MAX_DATA), sizeof header);
  CHECK(header.type == MSB_STDIN);
  CHECK(header.length == 1);
}

TEST_CASE("requests are laid out as the protocol has them") {
  CHECK(text_of(*encode_shutdown(15, 0x1000)) == unhex("11000000 08000000 0f000000 00100000"));
  CHECK(text_of(*encode_signal(7, 9, true)) ==
        unhex("41000000 0c000000 07000000 09000000 01000000"));
  CHECK(text_of(encode_resize(7, {24, 80})) == unhex("42000000 08000000 07000000 1800 5000"));
  CHECK(text_of(encode_process_request(MSB_WAIT, 7)) == unhex("44000000 04000000 07000000"));
  CHECK(text_of(encode_attach({.process = 7, .offsets = {1, 2, MSB_OFFSET_END}})) ==
        unhex("21000000 20000000 07000000 00000000 0100000000000000 0200000000000000"
              "ffffffffffffffff"));
  CHECK(text_of(*encode_connect_tcp(80)) == unhex("71000000 08000000 01000000 50000000"));
  CHECK(text_of(*encode_connect_udp(53)) == unhex("71000000 08000000 03000000 35000000"));
  CHECK(text_of(*encode_socket_owner({.family = 4,
                                      .protocol = 17,
                                      .local_port = 0x1234,
                                      .remote_port = 53,
                                      .reserved = 0,
                                      .remote = {192, 0, 2, 1}})) ==
        unhex("4d000000 20000000 04000000 11000000 3412 3500 00000000"
              "c0000201 00000000 00000000 00000000"));
  CHECK(text_of(*encode_connect_unix("/s")) == unhex("71000000 0b000000 02000000 00000000 2f7300"));
  CHECK(text_of(*encode_set_names("h", "", "x")) == unhex("4a000000 05000000 6800 00 7800"));
  CHECK(text_of(*encode_file_request(
            MSB_FILE_RENAME,
            {.flags = 32, .mode = 0, .user = 0, .group = 0, .offset = 0, .length = 0},
            {"/a", "/b"})) ==
        unhex("87000000 26000000 20000000 00000000 00000000 00000000 0000000000000000"
              "0000000000000000 2f6100 2f6200"));
}

TEST_CASE("requests that the agent would not take are refused here") {
  CHECK_FALSE(encode_shutdown(65, 0));
  CHECK_FALSE(encode_shutdown(15, 600'001));
  CHECK_FALSE(encode_signal(1, 0, false));
  CHECK_FALSE(encode_signal(1, 65, false));
  CHECK_FALSE(encode_ping(bytes_of(std::string(1025, 'x'))));
  CHECK_FALSE(encode_add_entropy({}));
  CHECK_FALSE(encode_add_entropy(bytes_of(std::string(513, 'x'))));
  CHECK_FALSE(encode_set_names("a\0b"s, "", ""));
  CHECK_FALSE(encode_set_names("", std::string(16'384, 'x'), ""));
  CHECK_FALSE(encode_connect_tcp(0));
  CHECK_FALSE(encode_connect_tcp(65'536));
  CHECK_FALSE(encode_connect_udp(0));
  CHECK_FALSE(encode_connect_udp(65'536));
  const msb_socket ends{
      .family = 6, .protocol = 6, .local_port = 1, .remote_port = 1, .reserved = 0, .remote = {}};
  CHECK(encode_socket_owner(ends));
  const auto owner_of = [&](const auto& change) {
    msb_socket changed = ends;
    change(changed);
    return encode_socket_owner(changed).has_value();
  };
  CHECK_FALSE(owner_of([](msb_socket& socket) { socket.family = 5; }));
  CHECK_FALSE(owner_of([](msb_socket& socket) { socket.protocol = 1; }));
  CHECK_FALSE(owner_of([](msb_socket& socket) { socket.local_port = 0; }));
  CHECK_FALSE(owner_of([](msb_socket& socket) { socket.remote_port = 0; }));
  CHECK_FALSE(owner_of([](msb_socket& socket) { socket.reserved = 1; }));
  CHECK_FALSE(encode_connect_unix("relative"));
  CHECK_FALSE(encode_connect_unix("/a\0b"s));
  CHECK_FALSE(encode_connect_unix("/" + std::string(1024, 'x')));
  const msb_file_request fields{};
  CHECK_FALSE(encode_file_request(MSB_FILE_STAT, fields, {"relative"}));
  CHECK_FALSE(encode_file_request(MSB_FILE_STAT, fields, {"/a\0"s}));
  CHECK_FALSE(encode_file_request(MSB_FILE_STAT, fields, {"/" + std::string(16'384, 'x')}));
  CHECK(encode_file_request(MSB_FILE_SYMLINK, fields, {"relative", "/link"}));
  CHECK_FALSE(encode_file_request(MSB_FILE_SYMLINK, fields, {"", "/link"}));
  CHECK_FALSE(encode_file_request(MSB_FILE_SYMLINK, fields, {"target", "link"}));
  msb_file_request mode{};
  mode.mode = 010000;
  CHECK_FALSE(encode_file_request(MSB_FILE_CHMOD, mode, {"/a"}));
}

}  // namespace
}  // namespace msb::protocol
