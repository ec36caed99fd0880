// SPDX-License-Identifier: Apache-2.0
#include "protocol/agent_frames.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <string>

#include "protocol/testing/wire.hpp"

namespace msb::protocol {
namespace {

using testing::bytes_of;
using testing::text_of;

// The one frame in `bytes`, as who is at `connection` gets it.
class Received {
 public:
  Received(Connection connection, std::span<const std::byte> bytes) : decoder_(connection) {
    decoder_.feed(bytes);
    const auto next = decoder_.next();
    REQUIRE(next);
    REQUIRE(*next);
    frame = **next;
    CHECK(decoder_.at_boundary());
  }
  Frame frame;

 private:
  FrameDecoder decoder_;
};

TEST_CASE("what a supervisor says is read as the agent's") {
  const msb_attached attached{7, 70, {1, 2, 3}, 4, 0, MSB_ATTACHED_INPUT, 0};
  const Received first(Connection::kProcess, encode_attached(attached));
  const auto read = decode_attached(first.frame);
  REQUIRE(read);
  CHECK(read->process == 7);
  CHECK(read->pid == 70);
  CHECK(read->offsets[2] == 3);
  CHECK(read->input == 4);
  CHECK(read->flags == MSB_ATTACHED_INPUT);

  Exited exited;
  exited.fields.kind = MSB_EXIT_STATUS;
  exited.fields.value = 3;
  exited.fields.process = 7;
  exited.fields.offsets[1] = 99;
  exited.kernel_line = "Out of memory: Killed process 7";
  const Received last(Connection::kProcess, encode_exited(exited));
  const auto end = decode_exited(last.frame);
  REQUIRE(end);
  CHECK(end->fields.value == 3);
  CHECK(end->fields.offsets[1] == 99);
  CHECK(end->kernel_line == exited.kernel_line);
}

TEST_CASE("a refusal's text is cut to what a frame carries") {
  const Received refused(Connection::kProcess,
                         encode_refused(MSB_STAGE_PROCESS, 3, "there is none"));
  const auto failure = decode_failure(refused.frame);
  REQUIRE(failure);
  CHECK(failure->stage == MSB_STAGE_PROCESS);
  CHECK(failure->error.code == 3);
  CHECK(failure->error.message == "there is none");
  const Received lengthy(Connection::kProcess,
                         encode_refused(MSB_STAGE_REQUEST, 0, std::string(5000, 'x')));
  CHECK(lengthy.frame.payload.size() == MSB_MAX_SMALL);
}

TEST_CASE("what a host says to attach is what the supervisor reads") {
  const AttachSpec wanted{.process = 9, .offsets = {0, MSB_OFFSET_END, 5}};
  const Received received(Connection::kAttached, encode_attach(wanted));
  const auto read = decode_attach(received.frame);
  REQUIRE(read);
  CHECK(read->process == 9);
  CHECK(read->offsets == wanted.offsets);
}

TEST_CASE("an ATTACH that is too short, or has a reserved field, is refused") {
  CHECK_FALSE(decode_attach({MSB_ATTACH, bytes_of("short")}));
  const msb_attach fields{1, 1, {}};
  CHECK_FALSE(decode_attach({MSB_ATTACH, std::as_bytes(std::span(&fields, 1))}));
}

TEST_CASE("a supervisor takes ATTACH and STDIN, and nothing else") {
  for (const auto type : {MSB_START, MSB_STDOUT, MSB_PING, MSB_CHANNEL_INPUT, MSB_EXITED}) {
    FrameDecoder decoder(Connection::kAttached);
    decoder.feed(encode_frame(type, {}));
    CHECK_FALSE(decoder.next());
  }
  FrameDecoder decoder(Connection::kAttached);
  decoder.feed(encode_frame(MSB_STDIN, {}));  // the end of input
  const auto next = decoder.next();
  REQUIRE(next);
  CHECK(*next);
}

}  // namespace
}  // namespace msb::protocol
