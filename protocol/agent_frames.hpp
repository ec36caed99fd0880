// SPDX-License-Identifier: Apache-2.0
// The agent's side of a process connection (msb_exec.h), for a supervisor that stands in for the
// agent: what it says, as frames, and what a host's program says to it. Pure; the program is not
// trusted. Output is append_data() of host_frames.hpp.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.hpp"
#include "protocol/frames.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/host_frames.hpp"
#include "protocol/msb_exec.h"

namespace msb::protocol {

FrameBytes encode_attached(const msb_attached& fields);
FrameBytes encode_exited(const Exited& exited);
// `text` is cut to what a frame carries.
FrameBytes encode_refused(msb_stage stage, std::uint32_t code, std::string_view text);

// A frame of type ATTACH, of a length that FrameDecoder let through.
Result<AttachSpec> decode_attach(const Frame& frame);

}  // namespace msb::protocol
