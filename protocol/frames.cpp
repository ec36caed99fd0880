// SPDX-License-Identifier: Apache-2.0
#include "protocol/frames.hpp"

#include <algorithm>

#include "protocol/msb_exec.h"

namespace msb::protocol {

namespace {

// The largest payload of a type that a guest sends; nothing for others.
std::optional<std::uint32_t> max_payload(std::uint32_t type) {
  switch (type) {
    case MSB_STDOUT:
    case MSB_STDERR:
      return MSB_MAX_DATA;
    case MSB_HELLO:
    case MSB_FAILED:
    case MSB_BYE:
    case MSB_STARTED:
    case MSB_REFUSED:
    case MSB_EXITED:
      return MSB_MAX_SMALL;
    default:
      return std::nullopt;
  }
}

template <typename T>
void append(std::vector<std::byte>& to, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

// Appends `text` and the NUL that ends it.
void append_string(std::vector<std::byte>& to, const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text.c_str(), text.size() + 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace

void FrameDecoder::feed(std::span<const std::byte> bytes) {
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(start_));
  start_ = 0;
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

Result<std::optional<Frame>> FrameDecoder::next() {
  const std::span<const std::byte> bytes = std::span(buffer_).subspan(start_);
  msb_frame_header header{};
  if (bytes.size() < sizeof header) {
    return std::nullopt;
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  const auto limit = max_payload(header.type);
  if (!limit || header.length > *limit) {
    return fail(
        "the guest sent a frame of type {} with {} bytes, which the exec protocol does not have",
        header.type, header.length);
  }
  if (bytes.size() - sizeof header < header.length) {
    return std::nullopt;
  }
  start_ += sizeof header + header.length;
  return Frame{header.type, bytes.subspan(sizeof header, header.length)};
}

std::vector<std::byte> encode_frame(std::uint32_t type, std::span<const std::byte> payload) {
  std::vector<std::byte> frame;
  frame.reserve(sizeof(msb_frame_header) + payload.size());
  append(frame, msb_frame_header{type, static_cast<std::uint32_t>(payload.size())});
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

Result<std::vector<std::byte>> encode_start(const ProcessSpec& spec) {
  const auto has_nul = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  if (std::ranges::any_of(spec.arguments, has_nul) ||
      std::ranges::any_of(spec.environment, has_nul) || has_nul(spec.directory)) {
    return fail("the command, its environment or its directory contains a NUL byte");
  }
  if (spec.arguments.empty()) {
    return fail("there is no command to run");
  }
  if (!spec.directory.starts_with('/')) {
    return fail("the working directory \"{}\" is not absolute", spec.directory);
  }
  std::vector<std::byte> payload;
  append(payload, msb_start{.flags = MSB_START_CREATE_DIRECTORY,
                            .user = spec.user,
                            .group = spec.group,
                            .arguments = static_cast<std::uint32_t>(spec.arguments.size()),
                            .variables = static_cast<std::uint32_t>(spec.environment.size()),
                            .reserved = 0});
  append_string(payload, spec.directory);
  for (const auto& text : spec.arguments) {
    append_string(payload, text);
  }
  for (const auto& text : spec.environment) {
    append_string(payload, text);
  }
  if (payload.size() > MSB_MAX_START) {
    return fail("the command and its environment take {} bytes; the limit is {}", payload.size(),
                MSB_MAX_START);
  }
  return encode_frame(MSB_START, payload);
}

std::vector<std::byte> encode_signal(std::uint32_t process, std::uint32_t signal) {
  const msb_signal payload{process, signal};
  return encode_frame(MSB_SIGNAL, std::as_bytes(std::span(&payload, 1)));
}

}  // namespace msb::protocol
