// SPDX-License-Identifier: Apache-2.0
// What a guest says, read from the payloads of its frames. Each function takes a frame of the type
// that it is named after, of a length that FrameDecoder let through, and fails with one sentence
// when a field has a value that the protocol does not have: nothing that comes out needs a second
// look at its bounds. Whether it fits what was asked is for the caller to see. Pure.
#pragma once

#include <cstdint>
#include <expected>
#include <string>

#include "base/result.hpp"
#include "protocol/frames.hpp"
#include "protocol/msb_exec.h"

namespace msb::protocol {

// Why something that was asked of the agent was not done.
struct Failure {
  std::uint32_t stage = 0;  // enum msb_stage; 0: the connection ended or broke, which says nothing
                            // of whether it was done
  Error error;              // one sentence, already quoted; `code` is the guest's errno, or 0
};

template <typename T>
using Answer = std::expected<T, Failure>;

struct Exited {
  msb_exited fields{};
  std::string kernel_line;  // when memory ran out; raw: quote() before it is shown
};

struct ProcessEntry {
  msb_process fields{};
  std::string label;    // raw, up to 255 bytes, as is the next
  std::string program;  // argv[0]
};

// A program, by one of its sockets.
struct SocketOwner {
  std::uint32_t pid = 0;  // as programs in the guest see it
  std::uint32_t user = 0;
  std::string name;  // raw, up to 15 bytes; may be empty
};

struct FileEntry {
  msb_file_entry fields{};
  std::string name;    // raw; never empty
  std::string target;  // raw; of a symbolic link, else empty
};

Result<msb_hello> decode_hello(const Frame& frame);
Result<Failure> decode_failure(const Frame& frame);  // FAILED and REFUSED
Result<msb_bye> decode_bye(const Frame& frame);
Result<msb_started> decode_started(const Frame& frame);
Result<msb_attached> decode_attached(const Frame& frame);
Result<Exited> decode_exited(const Frame& frame);
Result<msb_done> decode_done(const Frame& frame);
Result<ProcessEntry> decode_process(const Frame& frame);
Result<msb_metrics> decode_measured(const Frame& frame);
Result<msb_listener> decode_listener(const Frame& frame);
Result<SocketOwner> decode_owner(const Frame& frame);
Result<FileEntry> decode_file_entry(const Frame& frame);

// The error for a frame that is well-formed and came when it had no place.
Error out_of_place(const Frame& frame);

}  // namespace msb::protocol
