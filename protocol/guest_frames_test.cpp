// SPDX-License-Identifier: Apache-2.0
#include "protocol/guest_frames.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <string>
#include <string_view>

#include "protocol/testing/wire.hpp"

namespace msb::protocol {
namespace {

using namespace std::string_literals;
using testing::bytes_of;

// A payload, and a frame that borrows it.
struct Made {
  template <typename T>
  Made(std::uint32_t type, const T& fields, std::string_view rest = {})
      : payload(testing::frame_of(type, fields, rest).substr(sizeof(msb_frame_header))),
        frame{type, bytes_of(payload)} {}
  std::string payload;
  Frame frame;
};

TEST_CASE("a HELLO of this version has nothing in its reserved field") {
  CHECK(decode_hello(Made(MSB_HELLO, msb_hello{2, 0, 5}).frame)->guest_time_ns == 5);
  CHECK_FALSE(decode_hello(Made(MSB_HELLO, msb_hello{2, 1, 5}).frame));
  CHECK(decode_hello(Made(MSB_HELLO, msb_hello{3, 1, 5}).frame)->version == 3);
}

TEST_CASE("a failure names a stage and an errno that exist, and its text is quoted") {
  const auto failure = decode_failure(Made(MSB_REFUSED, msb_failure{6, 2}, "no\x1b[1m").frame);
  REQUIRE(failure);
  CHECK(failure->stage == MSB_STAGE_EXECUTE);
  CHECK(failure->error.code == 2);
  CHECK(failure->error.message == "no?[1m");
  for (const auto& [stage, code] :
       {std::pair(0U, 0U), {9U, 0U}, {~0U, 0U}, {2U, 4096U}, {2U, ~0U}}) {
    CHECK_FALSE(decode_failure(Made(MSB_REFUSED, msb_failure{stage, code}).frame));
  }
}

TEST_CASE("a BYE has one of four reasons") {
  for (const std::uint32_t reason : {1U, 2U, 3U, 4U}) {
    CHECK(decode_bye(Made(MSB_BYE, msb_bye{reason}).frame));
  }
  CHECK_FALSE(decode_bye(Made(MSB_BYE, msb_bye{0}).frame));
  CHECK_FALSE(decode_bye(Made(MSB_BYE, msb_bye{5}).frame));
}

TEST_CASE("process 0 does not exist") {
  CHECK(decode_started(Made(MSB_STARTED, msb_started{1, 2}).frame));
  CHECK_FALSE(decode_started(Made(MSB_STARTED, msb_started{0, 2}).frame));
  msb_attached attached{};
  attached.process = 1;
  CHECK(decode_attached(Made(MSB_ATTACHED, attached).frame));
  attached.reserved = 1;
  CHECK_FALSE(decode_attached(Made(MSB_ATTACHED, attached).frame));
  attached.reserved = 0;
  attached.process = 0;
  CHECK_FALSE(decode_attached(Made(MSB_ATTACHED, attached).frame));
}

TEST_CASE("only a process with a standard input has a terminal, or has had its end of input") {
  msb_attached attached{};
  attached.process = 1;
  for (const std::uint32_t flags : {0U, 2U, 8U, 9U, 10U, 11U, 12U, 15U}) {
    CAPTURE(flags);
    attached.flags = flags;
    CHECK(decode_attached(Made(MSB_ATTACHED, attached).frame));
  }
  for (const std::uint32_t flags : {1U, 3U, 4U, 5U, 7U, 16U, 24U, 0x80000008U}) {
    CAPTURE(flags);
    attached.flags = flags;
    CHECK_FALSE(decode_attached(Made(MSB_ATTACHED, attached).frame));
  }
}

TEST_CASE("a process ends by a status or a signal that exists") {
  const auto decodes = [](std::uint32_t kind, std::uint32_t value, std::uint32_t flags = 0,
                          std::uint32_t process = 1) {
    msb_exited exited{};
    exited.kind = kind;
    exited.value = value;
    exited.flags = flags;
    exited.process = process;
    return decode_exited(Made(MSB_EXITED, exited, "the kernel's line").frame).has_value();
  };
  CHECK(decodes(1, 0));
  CHECK(decodes(1, 255));
  CHECK_FALSE(decodes(1, 256));
  CHECK(decodes(2, 1, 7));
  CHECK(decodes(2, 64));
  CHECK_FALSE(decodes(2, 0));
  CHECK_FALSE(decodes(2, 65));
  CHECK_FALSE(decodes(0, 0));
  CHECK_FALSE(decodes(3, 0));
  CHECK_FALSE(decodes(1, 0, 8));
  CHECK_FALSE(decodes(1, 0, 0, 0));
}

msb_process process() {
  msb_process fields{};
  fields.process = 1;
  fields.state = MSB_PROCESS_RUNS;
  return fields;
}

bool decodes(const msb_process& fields, std::string_view rest = std::string_view("l\0a\0", 4)) {
  return decode_process(Made(MSB_PROCESS, fields, rest).frame).has_value();
}

TEST_CASE("a listed process has a state, counts that fit, and two strings") {
  const auto entry =
      decode_process(Made(MSB_PROCESS, process(), std::string_view("label\0argv\0", 11)).frame);
  REQUIRE(entry);
  CHECK(entry->label == "label");
  CHECK(entry->program == "argv");
  CHECK(decodes(process(), std::string_view("\0\0", 2)));
  CHECK(decodes(process(), std::string(255, 'x') + "\0"s + std::string(255, 'y') + "\0"s));
  for (const std::string& rest :
       {"ab"s, "a\0b"s, "a\0b\0c"s, "a\0b\0\0"s, std::string(256, 'x') + "\0\0"s}) {
    CHECK_FALSE(decodes(process(), rest));
  }
  auto fields = process();
  fields.process = 0;
  CHECK_FALSE(decodes(fields));
  for (const std::uint32_t state : {0U, 3U}) {
    fields = process();
    fields.state = state;
    CHECK_FALSE(decodes(fields));
  }
  fields = process();
  fields.attached = 2;
  CHECK_FALSE(decodes(fields));
  fields = process();
  fields.flags = 32;
  CHECK_FALSE(decodes(fields));
  fields = process();
  fields.oldest[1] = 1;
  CHECK_FALSE(decodes(fields));
  fields.offsets[1] = 1;
  CHECK(decodes(fields));
}

TEST_CASE("a listener has a family and a port that exist") {
  const auto listener = [](std::uint32_t family, std::uint32_t port) {
    msb_listener fields{};
    fields.family = family;
    fields.port = port;
    return decode_listener(Made(MSB_LISTENER, fields).frame).has_value();
  };
  CHECK(listener(4, 1));
  CHECK(listener(6, 65'535));
  CHECK_FALSE(listener(5, 80));
  CHECK_FALSE(listener(4, 0));
  CHECK_FALSE(listener(4, 65'536));
}

TEST_CASE("the owner of a socket has a pid, and a name that may be empty") {
  const auto owner = decode_owner(Made(MSB_OWNER, msb_owner{7, 1000}, "curl").frame);
  REQUIRE(owner);
  CHECK(owner->pid == 7);
  CHECK(owner->user == 1000);
  CHECK(owner->name == "curl");
  CHECK(decode_owner(Made(MSB_OWNER, msb_owner{7, 0}).frame)->name.empty());
  CHECK_FALSE(decode_owner(Made(MSB_OWNER, msb_owner{0, 0}, "curl").frame));
}

TEST_CASE("a file has a name, and a target only when it is a link") {
  const auto entry = [](std::uint32_t mode, std::string_view rest) {
    msb_file_entry fields{};
    fields.mode = mode;
    return decode_file_entry(Made(MSB_FILE_ENTRY, fields, rest).frame);
  };
  CHECK(entry(S_IFREG, "a\0\0"s)->name == "a");
  CHECK(entry(S_IFLNK, "a\0b\0"s)->target == "b");
  CHECK_FALSE(entry(S_IFREG, "a\0b\0"s));
  CHECK_FALSE(entry(S_IFREG, "\0\0"s));
  CHECK_FALSE(entry(S_IFREG, "a\0b"s));
  CHECK_FALSE(entry(S_IFREG, "a\0\0x\0"s));
  msb_file_entry reserved{};
  reserved.reserved = 1;
  CHECK_FALSE(decode_file_entry(Made(MSB_FILE_ENTRY, reserved, "a\0\0"s).frame));
  msb_file_entry unknown{};
  unknown.change = MSB_FILE_DELETED + 1;
  CHECK_FALSE(decode_file_entry(Made(MSB_FILE_ENTRY, unknown, "a\0\0"s).frame));
}

}  // namespace
}  // namespace msb::protocol
