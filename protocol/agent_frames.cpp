// SPDX-License-Identifier: Apache-2.0
#include "protocol/agent_frames.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <span>
#include <vector>

namespace msb::protocol {

namespace {

template <typename T>
FrameBytes with_text(std::uint32_t type, const T& fields, std::string_view text) {
  const auto fixed = std::as_bytes(std::span(&fields, 1));
  const auto rest = std::as_bytes(std::span(text.substr(0, MSB_MAX_SMALL - sizeof fields)));
  std::vector<std::byte> payload(fixed.begin(), fixed.end());
  std::ranges::copy(rest, std::back_inserter(payload));
  return encode_frame(type, payload);
}

}  // namespace

FrameBytes encode_attached(const msb_attached& fields) {
  return with_text(MSB_ATTACHED, fields, {});
}

FrameBytes encode_exited(const Exited& exited) {
  return with_text(MSB_EXITED, exited.fields, exited.kernel_line);
}

FrameBytes encode_refused(msb_stage stage, std::uint32_t code, std::string_view text) {
  return with_text(MSB_REFUSED, msb_failure{stage, code}, text);
}

Result<AttachSpec> decode_attach(const Frame& frame) {
  msb_attach fields{};
  if (frame.payload.size() != sizeof fields) {
    return fail("an ATTACH has {} bytes instead of {}", frame.payload.size(), sizeof fields);
  }
  std::memcpy(&fields, frame.payload.data(), sizeof fields);
  if (fields.reserved != 0) {
    return fail("a reserved field of an ATTACH is not 0");
  }
  AttachSpec spec{.process = fields.process};
  std::ranges::copy(fields.offsets, spec.offsets.begin());
  return spec;
}

}  // namespace msb::protocol
