// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: what a guest, or a client of a supervisor, may send, from bytes to fields. The
// first byte chooses the connection, the second how the stream is cut. Seeds:
// tests/corpus/guest-frames.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "protocol/agent_frames.hpp"
#include "protocol/frames.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/msb_exec.h"

namespace {

using namespace msb;
using namespace msb::protocol;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

void check_failure(const Frame& frame) {
  if (const auto failure = decode_failure(frame)) {
    require(failure->stage >= MSB_STAGE_BOOT && failure->stage <= MSB_STAGE_FILE);
    for (const char c : failure->error.message) {
      require(c >= 0x20 && c <= 0x7e);
    }
  }
}

void check_exited(const Frame& frame) {
  if (const auto exited = decode_exited(frame)) {
    require(exited->fields.process != 0);
    require(exited->fields.value <= (exited->fields.kind == MSB_EXIT_SIGNAL ? 64U : 255U));
  }
}

void check_process(const Frame& frame) {
  if (const auto process = decode_process(frame)) {
    require(process->label.size() <= 255 && process->program.size() <= 255);
    for (std::size_t i = 0; i < MSB_STREAMS; ++i) {
      require(process->fields.oldest[i] <= process->fields.offsets[i]);
    }
  }
}

void check_owner(const Frame& frame) {
  if (const auto owner = decode_owner(frame)) {
    require(owner->pid != 0 && owner->name.size() <= 15);
  }
}

void check_file_entry(const Frame& frame) {
  if (const auto entry = decode_file_entry(frame)) {
    require(!entry->name.empty());
    require(entry->name.size() + entry->target.size() + 2 + sizeof(msb_file_entry) ==
            frame.payload.size());
  }
}

void check(const Frame& frame) {
  require(frame.payload.size() <= MSB_MAX_DATA);
  require(!out_of_place(frame).message.empty());
  switch (frame.type) {
    case MSB_HELLO:
      require(decode_hello(frame) || frame.payload.size() == sizeof(msb_hello));
      break;
    case MSB_FAILED:
    case MSB_REFUSED:
      check_failure(frame);
      break;
    case MSB_BYE:
      require(decode_bye(frame) || frame.payload.size() == sizeof(msb_bye));
      break;
    case MSB_STARTED:
      require(decode_started(frame) || frame.payload.size() == sizeof(msb_started));
      break;
    case MSB_ATTACHED:
      require(decode_attached(frame) || frame.payload.size() == sizeof(msb_attached));
      break;
    case MSB_EXITED:
      check_exited(frame);
      break;
    case MSB_DONE:
      require(decode_done(frame).has_value());
      break;
    case MSB_PROCESS:
      check_process(frame);
      break;
    case MSB_MEASURED:
      require(decode_measured(frame).has_value());
      break;
    case MSB_LISTENER:
      require(decode_listener(frame) || frame.payload.size() == sizeof(msb_listener));
      break;
    case MSB_OWNER:
      check_owner(frame);
      break;
    case MSB_FILE_ENTRY:
      check_file_entry(frame);
      break;
    case MSB_ATTACH:
      require(decode_attach(frame) || frame.payload.size() == sizeof(msb_attach));
      break;
    default:
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) {
    return 0;
  }
  FrameDecoder decoder(static_cast<Connection>(data[0] % kConnections));
  const std::size_t piece = 1U + data[1];
  std::span<const std::byte> bytes = std::as_bytes(std::span(data, size)).subspan(2);
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(piece, bytes.size()));
    bytes = bytes.subspan(part.size());
    decoder.feed(part);
    auto frame = decoder.next();
    for (; frame && *frame; frame = decoder.next()) {
      check(**frame);
    }
    if (!frame) {
      require(!decoder.next());
      return 0;
    }
  }
  return 0;
}
